//! A test named `vm_*` that stands where `cargo xtask vm` doesn't look would never run: the fast tier leaves it out.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::{Path, PathBuf};

/// Files of a tree that hold Rust.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}

/// Whether it belongs to a test target named `vm` or `vm_host`.
fn looked_at(file: &Path) -> bool {
    let mut parts = file.iter().map(|part| part.to_string_lossy());
    parts.any(|part| part == "tests")
        && parts
            .next()
            .is_some_and(|target| ["vm", "vm_host"].contains(&target.strip_suffix(".rs").unwrap_or(&target)))
}

/// Names of tests in a source whose last part begins with `vm_`.
fn named_for_the_tier(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut names = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let line = line.strip_prefix("async ").unwrap_or(line);
        let name = line.strip_prefix("fn ").and_then(|rest| rest.split('(').next());
        let attribute = lines[..at].iter().rev().take_while(|line| line.starts_with('#'));
        if let Some(name) = name.filter(|name| name.starts_with("vm_"))
            && attribute.clone().any(|line| line.contains("test"))
        {
            names.push(name);
        }
    }
    names
}

#[test]
fn no_test_for_the_machine_stands_where_nobody_looks() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let (mut lost, mut found) = (Vec::new(), 0);
    for file in sources(&root.join("crates"))
        .into_iter()
        .chain(sources(&root.join("xtask/src")))
    {
        let text = std::fs::read_to_string(&file).unwrap();
        let names = named_for_the_tier(&text);
        if looked_at(&file) {
            found += names.len();
        } else {
            lost.extend(names.iter().map(|name| format!("{}: {name}", file.display())));
        }
    }
    assert_eq!(
        lost,
        Vec::<String>::new(),
        "move these to tests/vm/ or tests/vm_host.rs"
    );
    assert!(found > 0);
}

#[test]
fn targets_and_names_are_told_apart() {
    for (file, ours) in [
        ("crates/x/tests/vm/smoke.rs", true),
        ("crates/x/tests/vm.rs", true),
        ("crates/x/tests/vm_host.rs", true),
        ("crates/x/tests/vm_host/cuts.rs", true),
        ("crates/x/tests/dir/vm.rs", false),
        ("crates/x/src/vm/suite.rs", false),
    ] {
        assert_eq!(looked_at(Path::new(file)), ours, "{file}");
    }
    let text = "#[tokio::test]\nasync fn vm_a() {}\n#[test]\nfn vm_b() {}\nfn vm_helper() {}\n#[test]\nfn other() {}\n";
    assert_eq!(named_for_the_tier(text), ["vm_a", "vm_b"]);
}
