//! Declared datasets and what is taken over, with a `zfs` that answers from a file.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::lab::{Ran, run_with_path};

const LISTING: &str = "tank\ttype\tfilesystem\t-\ntank\tmountpoint\tnone\tlocal\ntank/db\ttype\tfilesystem\t-\n\
                       tank/db\trecordsize\t131072\tdefault\ntank/db\tcompression\tlz4\tlocal\n";

/// Answers `get` and `list` from files; writes the rest down.
fn fake_zfs(dir: &Path) {
    let at = dir.display();
    let script = format!(
        "#!/bin/sh\ncase \"$1$5\" in\n\
         get-t|getname,property,value,source) cat {at}/listing ;;\n\
         get*) printf 'on\\nnone\\n' ;;\n\
         list*) cut -f1 {at}/listing | sort -u ;;\n\
         *) echo \"$*\" >> {at}/ran ;;\nesac\n"
    );
    fs::create_dir(dir.join("bin")).unwrap();
    fs::write(dir.join("bin/zfs"), script).unwrap();
    fs::set_permissions(dir.join("bin/zfs"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.join("listing"), LISTING).unwrap();
}

fn run(dir: &Path, args: &[&str]) -> Ran {
    let path = format!("{}:/usr/bin:/bin", dir.join("bin").display());
    run_with_path(dir, args, &path)
}

#[test]
fn a_plan_is_shown_and_applied() {
    let dir = tempfile::tempdir().unwrap();
    fake_zfs(dir.path());
    let config =
        "[datasets.\"tank/db\"]\nprofile = \"sqlite\"\n[datasets.\"tank/new\"]\nprofile = \"media\"\n";
    fs::write(dir.path().join("reseed.toml"), config).unwrap();
    let planned = run(dir.path(), &["--config", "reseed.toml", "plan"]).expect(0);
    assert_eq!(
        planned.out,
        "~ tank/db  recordsize: 131072 -> 16K  (for what is written from now on; what is there stays as it is)\n\
         + tank/new  compression=lz4 recordsize=128K\n1 to create, 1 to set\n"
    );
    let dry = run(dir.path(), &["--config", "reseed.toml", "apply", "--dry-run"]).expect(0);
    assert_eq!(dry.out, planned.out);
    assert!(!dir.path().join("ran").exists(), "a dry run changes nothing");
    let applied = run(dir.path(), &["--config", "reseed.toml", "--json", "apply"]).expect(0);
    assert_eq!(applied.json()["applied"].as_array().unwrap().len(), 2);
    assert_eq!(
        fs::read_to_string(dir.path().join("ran")).unwrap(),
        "set recordsize=16K tank/db\ncreate -u -o compression=lz4 -o recordsize=128K tank/new\n"
    );
    // An obstacle is told by the exit code.
    fs::write(dir.path().join("reseed.toml"), "[datasets.\"usb/x\"]\n").unwrap();
    assert!(
        run(dir.path(), &["--config", "reseed.toml", "plan"])
            .expect(3)
            .out
            .contains("no pool \"usb\"")
    );
}

#[test]
fn neither_the_command_nor_what_it_starts_leaves_a_core_dump() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let dir = tempfile::tempdir().unwrap();
    fake_zfs(dir.path());
    let own = dir.path().join("own");
    let script = format!("#!/bin/sh\ngrep core /proc/self/limits > {}\n", own.display());
    fs::write(dir.path().join("bin/zfs"), script).unwrap();
    let maximum = getrlimit(Resource::Core).maximum;
    let current = maximum;
    setrlimit(Resource::Core, Rlimit { current, maximum }).unwrap();
    run(dir.path(), &["import", "pool", "tank"]);
    let limits = fs::read_to_string(own).unwrap();
    let words: Vec<&str> = limits.split_whitespace().collect();
    assert!(
        maximum.is_none_or(|maximum| maximum > 1),
        "it could not be told here: {maximum:?}"
    );
    assert_eq!(words, ["Max", "core", "file", "size", "1", "1", "bytes"]);
}

#[test]
fn a_pool_and_a_sanoid_conf_are_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    fake_zfs(dir.path());
    let pool = run(dir.path(), &["import", "pool", "tank"]).expect(0).out;
    fs::write(dir.path().join("reseed.toml"), &pool).unwrap();
    let plan = run(dir.path(), &["--config", "reseed.toml", "plan"])
        .expect(0)
        .out;
    assert_eq!(plan, "all is as declared\n");
    run(dir.path(), &["import", "pool", "gone"]).expect(2);

    let conf = "[tank]\nrecursive = yes\nprocess_children_only = yes\nhourly = 7\npruning_script = /bin/x\n";
    fs::write(dir.path().join("sanoid.conf"), conf).unwrap();
    let imported = run(dir.path(), &["import", "sanoid", "sanoid.conf"])
        .expect(0)
        .out;
    assert!(
        imported.contains("[datasets.\"tank/db\".snapshots]"),
        "{imported}"
    );
    assert!(!imported.contains("[datasets.\"tank\".snapshots]"), "{imported}");
    assert!(
        imported.contains("# - [tank] pruning_script = /bin/x (line 5): "),
        "{imported}"
    );
    fs::write(dir.path().join("reseed.toml"), &imported).unwrap();
    let given = run(dir.path(), &["--config", "reseed.toml", "sanoid", "conf"])
        .expect(0)
        .out;
    assert!(
        given.contains("[tank/db]\nautosnap = yes\n") && given.contains("hourly = 7\n"),
        "{given}"
    );

    fs::write(dir.path().join("sanoid.conf"), "[tank]\nhuorly = 7\n").unwrap();
    let refused = run(dir.path(), &["import", "sanoid", "sanoid.conf"]).expect(2);
    assert!(refused.all().contains("did you mean `hourly`?"));
}

#[test]
fn recursion_without_zfs_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("sanoid.conf"), "[tank]\nrecursive = yes\n").unwrap();
    let without = run_with_path(dir.path(), &["import", "sanoid", "sanoid.conf"], "/nonexistent").expect(2);
    assert!(without.all().contains("--datasets names"), "{}", without.all());
    fs::write(dir.path().join("names"), "tank\ntank/a\n").unwrap();
    let args = ["import", "sanoid", "sanoid.conf", "--datasets", "names"];
    let with = run_with_path(dir.path(), &args, "/nonexistent").expect(0);
    assert!(with.out.contains("[datasets.\"tank/a\".snapshots]"));
}
