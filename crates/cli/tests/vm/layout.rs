//! Declared datasets on real ZFS: what is missing is made, what drifted is set, and nothing else happens.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use reseed_testkit::vm::pool::ScratchPool;

use crate::lab::Ran;
use crate::zfs_lab::{counted, sure};

/// A pool, and a directory with a configuration that declares datasets in it.
struct Layout {
    pool: ScratchPool,
    root: PathBuf,
    _dir: tempfile::TempDir,
}

impl Layout {
    /// What an operator has done by hand before.
    fn after(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let pool = ScratchPool::with(512, 1, &["-O", "compression=off"]);
        let done = format!("set -e; P={}; cd {}; {script}", pool.name(), root.display());
        sure(&["sh", "-c", &done]);
        Self {
            pool,
            root,
            _dir: dir,
        }
    }

    /// Writes the configuration: `$P` is the pool, `$R` the directory.
    fn declare(&self, text: &str) {
        fs::write(self.root.join("reseed.toml"), self.with_names(text)).unwrap();
    }

    fn with_names(&self, text: &str) -> String {
        let text = text.replace("$P", self.pool.name());
        text.replace("$R", self.root.to_str().unwrap())
    }

    /// Runs the command, and says which tools it has started.
    fn run(&self, args: &[&str]) -> (Ran, Vec<String>) {
        let mut all = vec!["--config", "reseed.toml"];
        all.extend(args);
        counted(&self.root, &all)
    }

    /// Every dataset and snapshot with its guid.
    fn guids(&self) -> Vec<String> {
        let name = self.pool.name();
        let all = sure(&["zfs", "list", "-Hp", "-t", "all", "-o", "name,guid", "-r", name]);
        all.lines().map(str::to_owned).collect()
    }

    /// How often the pool was changed by a command.
    fn changes(&self) -> usize {
        sure(&["zpool", "history", self.pool.name()]).lines().count()
    }

    fn get(&self, properties: &str, dataset: &str) -> String {
        let dataset = self.pool.dataset(dataset);
        let values = sure(&["zfs", "get", "-Hp", "-o", "value", properties, &dataset]);
        values.lines().collect::<Vec<_>>().join(" ")
    }
}

/// The block size that a file has.
fn block(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blksize()
}

#[test]
fn vm_what_is_declared_is_made_and_set_and_nothing_is_destroyed() {
    let lab = Layout::after(
        "zfs create $P/db; head -c 1000000 /dev/zero > /tmp/$P/mnt/db/old; zfs snapshot $P/db@kept;
         zfs create $P/left; zfs set custom:owner=me $P/left
         mkdir taken; echo precious > taken/file",
    );
    lab.declare(
        "[datasets.\"$P/db\"]\nprofile = \"sqlite\"\nproperties = { casesensitivity = \"mixed\", atime = \"off\" }\n\
         [datasets.\"$P/films and series\"]\nprofile = \"media\"\n\
         [datasets.\"$P/pg/data\"]\nprofile = \"postgres-data\"\nproperties = { mountpoint = \"$R/pg\" }\n\
         [datasets.\"$P/pg/wal\"]\nprofile = \"postgres-wal\"\n\
         [datasets.\"$P/taken\"]\nproperties = { mountpoint = \"$R/taken\", quota = \"20M\" }\n\
         [datasets.\"zzpool/x\"]\n",
    );
    let (guids, changes) = (lab.guids(), lab.changes());

    let plan = lab.run(&["plan"]).0.expect(3);
    let shown = lab.with_names(
        "~ $P/db  atime: on -> off\n\
         ~ $P/db  compression: off -> lz4  (for what is written from now on; what is there stays as it is)\n\
         ~ $P/db  recordsize: 131072 -> 16K  (for what is written from now on; what is there stays as it is)\n\
         + $P/films and series  compression=lz4 recordsize=128K\n\
         + $P/pg  (something declared is below it)\n\
         + $P/pg/data  compression=lz4 mountpoint=$R/pg recordsize=8K\n\
         + $P/pg/wal  compression=off recordsize=128K\n\
         + $P/taken  mountpoint=$R/taken quota=20M\n\
         ! $P/db  casesensitivity is sensitive and can't become mixed: it is decided when a dataset is created. Create \
         another one and copy the data, or declare casesensitivity = \"sensitive\"\n\
         ! zzpool/x  there is no pool \"zzpool\" here; import it with `zpool import`, or create it\n\
         5 to create, 3 to set, 2 that can't be\n",
    );
    assert_eq!(plan.out, shown);
    assert_eq!(lab.run(&["apply", "--dry-run"]).0.expect(3).out, shown);
    assert_eq!(
        (lab.guids(), lab.changes()),
        (guids.clone(), changes),
        "only shown"
    );

    let applied = lab.run(&["apply"]).0.expect(3);
    assert!(applied.out.contains("taken has something in it"), "{applied:?}");
    assert_eq!(
        lab.get("recordsize,compression,mounted", "films and series"),
        "131072 lz4 yes"
    );
    assert_eq!(
        lab.get("recordsize,compression,mounted", "pg/data"),
        "8192 lz4 yes"
    );
    assert_eq!(
        lab.get("recordsize,compression,mounted", "pg/wal"),
        "131072 off yes"
    );
    assert_eq!(lab.get("recordsize,compression,atime", "db"), "16384 lz4 off");
    let at = sure(&[
        "findmnt",
        "-n",
        "-o",
        "SOURCE",
        "--mountpoint",
        &lab.with_names("$R/pg"),
    ]);
    assert_eq!(at, lab.pool.dataset("pg/data"));
    // What is there keeps its blocks, as the plan has said.
    let db = lab.pool.mountpoint().join("db");
    fs::write(db.join("new"), vec![1; 1_000_000]).unwrap();
    assert_eq!(
        (block(&db.join("old")), block(&db.join("new"))),
        (131_072, 16_384)
    );
    // Somebody's files stay visible; nothing was mounted over them.
    assert_eq!(lab.get("mounted", "taken"), "no");
    assert_eq!(
        fs::read_to_string(lab.root.join("taken/file")).unwrap(),
        "precious\n"
    );

    // As long as they are there, that is said, and nothing is done.
    let (made, changes) = (lab.guids(), lab.changes());
    let again = lab.run(&["apply"]).0.expect(3);
    let refused =
        lab.with_names("~ $P/taken  mounted: no -> $R/taken: not done: $R/taken has something in it");
    assert!(again.out.contains(&refused), "{again:?}");
    assert_eq!(lab.changes(), changes, "{again:?}");
    fs::rename(lab.root.join("taken"), lab.root.join("elsewhere")).unwrap();
    lab.run(&["apply"]).0.expect(3);
    assert_eq!(lab.get("mounted", "taken"), "yes");

    // And once all is so, a further run asks, and does nothing.
    lab.declare(
        "[datasets.\"$P/db\"]\nprofile = \"sqlite\"\n[datasets.\"$P/films and series\"]\nprofile = \"media\"\n\
         [datasets.\"$P/taken\"]\nproperties = { mountpoint = \"$R/taken\", quota = \"20M\" }\n",
    );
    let changes = lab.changes();
    let (last, started) = lab.run(&["apply"]);
    assert_eq!(last.expect(0).out, "all is as declared\n");
    // All that is set, and which names there are: a value can't make up either.
    assert_eq!(started.len(), 2, "{started:?}");
    let asks = |one: &&String| one.starts_with("zfs get ") || one.starts_with("zfs list ");
    assert_eq!(started.iter().filter(asks).count(), 2, "{started:?}");
    assert_eq!(lab.changes(), changes);
    // What is no longer declared, and what never was, is still there.
    let now = lab.guids();
    for one in guids.iter().chain(&made) {
        assert!(now.contains(one), "{one}: {now:#?}");
    }
    assert_eq!(lab.get("custom:owner", "left"), "me");
}

#[test]
fn vm_what_is_imported_from_a_pool_is_already_so() {
    let lab = Layout::after(
        "head -c 32 /dev/urandom > key
         zfs create -o recordsize=8K -o compression=lz4 -o quota=100M -o 'my:note=say \"when\"' '$P/a b'
         zfs create -o encryption=on -o keyformat=raw -o keylocation=file://$PWD/key $P/secret
         zfs create $P/secret/below
         zfs create -o casesensitivity=mixed -o normalization=formD -o mountpoint=$PWD/mixed $P/mixed
         zfs create -o atime=off -o xattr=sa -o acltype=posixacl -o dnodesize=auto -o snapdir=visible $P/tuned
         zfs create -o canmount=off $P/tuned/holder
         zfs create -o canmount=noauto -o mountpoint=/ $P/tuned/system1
         zfs create -o canmount=noauto -o mountpoint=/ $P/tuned/system2
         zfs create -o mountpoint=legacy $P/legacy
         zfs create -s -V 16M $P/volume
         zfs snapshot $P/tuned@s; zfs send -p $P/tuned@s | zfs receive -u -o readonly=on -x mountpoint $P/copy
         zfs set canmount=noauto $P/copy"
            .replace("'$P/a b'", "\"$P/a b\"")
            .as_str(),
    );
    let (guids, changes) = (lab.guids(), lab.changes());
    let imported = lab.run(&["import", "pool", lab.pool.name()]).0;
    let imported = imported.expect(0).out;
    for words in [
        "[datasets.\"$P/a b\"]\nprofile = \"postgres-data\"",
        "\"my:note\" = \"say \\\"when\\\"\"",
        "\"quota\" = \"100M\"",
        "\"casesensitivity\" = \"mixed\"",
        "\"encryption\" = \"aes-256-gcm\"",
        "# - $P/volume: it is a volume",
    ] {
        let words = lab.with_names(words);
        assert!(imported.contains(&words), "{words}\n{imported}");
    }
    lab.declare(&imported);
    for command in ["plan", "apply"] {
        let (ran, started) = lab.run(&[command]);
        assert_eq!(ran.expect(0).out, "all is as declared\n", "{imported}");
        assert_eq!(started.len(), 2, "{started:?}");
    }
    assert_eq!((lab.guids(), lab.changes()), (guids, changes));

    // What differs afterwards is shown, and nothing but that: a value that came with a stream, and one from above.
    sure(&["zfs", "set", "quota=1G", &lab.pool.dataset("a b")]);
    sure(&["zfs", "set", "snapdir=hidden", &lab.pool.dataset("copy")]);
    sure(&["zfs", "inherit", "atime", &lab.pool.dataset("tuned")]);
    sure(&["zfs", "unmount", &lab.pool.dataset("mixed")]);
    sure(&["zfs", "unmount", &lab.pool.dataset("secret/below")]);
    sure(&["zfs", "unmount", &lab.pool.dataset("secret")]);
    sure(&["zfs", "unload-key", &lab.pool.dataset("secret")]);
    let drifted = lab.with_names(
        "~ $P/a b  quota: 1073741824 -> 100M\n\
         ~ $P/copy  snapdir: hidden -> visible\n\
         ~ $P/mixed  mounted: no -> $R/mixed\n\
         ~ $P/tuned  atime: on -> off\n",
    );
    let plan = lab.run(&["plan"]).0.expect(3).out;
    assert!(plan.starts_with(&drifted), "{plan}");
    for locked in ["secret", "secret/below"] {
        let words = format!(
            "! {}  it isn't mounted, because its key isn't loaded",
            lab.pool.dataset(locked)
        );
        assert!(plan.contains(&words), "{plan}");
    }
    lab.run(&["apply"]).0.expect(3);
    assert_eq!(lab.get("mounted", "mixed"), "yes");
    sure(&["zfs", "load-key", &lab.pool.dataset("secret")]);
    lab.run(&["apply"]).0.expect(0);
    assert_eq!(lab.get("mounted", "secret/below"), "yes");
    assert_eq!(lab.run(&["plan"]).0.expect(0).out, "all is as declared\n");

    // A pool that is away is not an empty one.
    sure(&["zpool", "export", lab.pool.name()]);
    let away = lab.run(&["import", "pool", lab.pool.name()]).0.expect(2);
    assert!(away.all().contains("there is no pool"), "{away:?}");
    let plan = lab.run(&["plan"]).0.expect(3).out;
    assert!(
        plan.contains("there is no pool") && plan.contains("0 to create, 0 to set"),
        "{plan}"
    );
    sure(&[
        "zpool",
        "import",
        "-d",
        lab.pool.dir().to_str().unwrap(),
        lab.pool.name(),
    ]);
}

/// sanoid itself would: it has no rule for it.
#[test]
fn vm_the_newest_snapshot_stays_whatever_sanoid_is_to_prune() {
    let layout = Layout::after(
        "zfs create $P/a; zfs create $P/b
         for d in a b; do for s in 2026-01-01_00:00:00 2026-01-01_01:00:00; do zfs snapshot $P/$d@autosnap_${s}_hourly; sleep 1.1; done; done
         zfs snapshot $P/b@by-hand; sleep 1.1",
    );
    layout.declare(
        "host = \"lab\"\nstate_dir = \"$R/state\"\n\
         [datasets.\"$P/a\".snapshots]\nhourly = 0\ndaily = 1\n\
         [datasets.\"$P/b\".snapshots]\nhourly = 0\ndaily = 1\n",
    );
    let snapshots = || {
        let name = layout.pool.name();
        let all = sure(&["zfs", "list", "-Hp", "-t", "snapshot", "-o", "name", "-r", name]);
        all.lines()
            .map(|line| line.rsplit('/').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let before = snapshots();
    let (dry, _) = layout.run(&["sanoid", "prune", "-n"]);
    let dry = dry.expect(3).out;
    assert_eq!(snapshots(), before);
    let (ran, _) = layout.run(&["sanoid", "prune"]);
    let ran = ran.expect(3);
    assert_eq!(ran.out.replace("gone: ", "would go: "), dry);
    let told = format!(
        "left alone, for its newest snapshot would go: {}",
        layout.pool.dataset("a")
    );
    assert!(ran.out.contains(&told), "{ran:?}");
    assert_eq!(
        snapshots(),
        [
            "a@autosnap_2026-01-01_00:00:00_hourly",
            "a@autosnap_2026-01-01_01:00:00_hourly",
            "b@by-hand"
        ]
    );
}
