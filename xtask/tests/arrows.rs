//! Which crate of the workspace may depend on which: `cli -> backend-* -> core`, `testkit -> core`.
//!
//! Judges what `cargo metadata` says, and is tested itself with arrows that must not be. A crate that isn't known here is
//! refused: it has no place in the design yet.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// A place in the design.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Core,
    Backend,
    Testkit,
    Cli,
    Xtask,
}

fn place(package: &str) -> Option<Place> {
    match package {
        "reseed-core" => Some(Place::Core),
        "reseed-testkit" => Some(Place::Testkit),
        "reseed" => Some(Place::Cli),
        "xtask" => Some(Place::Xtask),
        other => other.strip_prefix("reseed-backend-").map(|_| Place::Backend),
    }
}

/// Whether `from` may depend on `to`; `dev` when only its tests do.
fn allowed(from: Place, to: Place, dev: bool) -> bool {
    use Place::{Backend, Cli, Core, Testkit};
    match (from, to) {
        (Cli, Backend | Core) | (Backend | Testkit, Core) => true,
        (Backend | Core | Cli, Testkit) => dev,
        _ => false,
    }
}

/// Every arrow of the workspace that must not be, in words.
fn wrong_arrows(metadata: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let members: BTreeSet<String> = list(&metadata["workspace_members"])
        .iter()
        .map(ToString::to_string)
        .collect();
    let packages: Vec<Value> = list(&metadata["packages"])
        .into_iter()
        .filter(|package| members.contains(&package["id"].to_string()))
        .collect();
    let names: BTreeSet<&str> = packages
        .iter()
        .filter_map(|package| package["name"].as_str())
        .collect();
    let mut wrong = Vec::new();
    if packages.is_empty() {
        wrong.push("the workspace has no members".to_owned());
    }
    for package in &packages {
        let name = package["name"].as_str().unwrap_or("?");
        let Some(from) = place(name) else {
            wrong.push(format!("{name} has no place in the design"));
            continue;
        };
        for dependency in list(&package["dependencies"]) {
            // `name` is the package's own name, also when the dependency is renamed.
            let target = dependency["name"].as_str().unwrap_or("?");
            let dev = dependency["kind"] == "dev";
            let ours = names.contains(target) || dependency["path"].is_string();
            if !ours || (target == name && dev) {
                continue;
            }
            if !place(target).is_some_and(|to| allowed(from, to, dev)) {
                let kind = dependency["kind"].as_str().unwrap_or("normal");
                wrong.push(format!("{name} -> {target} ({kind})"));
            }
        }
    }
    wrong
}

#[test]
fn the_workspace_has_only_the_arrows_of_the_design() {
    let metadata = metadata();
    assert_eq!(wrong_arrows(&metadata), Vec::<String>::new());
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test asks cargo; core::exec is not for xtask, which depends on no crate of ours"
)]
fn metadata() -> Value {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A workspace as the design has it, with one more arrow.
fn planted(from: &str, to: &str, kind: Option<&str>) -> Value {
    let mut graph = vec![
        (
            "reseed",
            vec![("reseed-backend-zfs", None), ("reseed-core", None)],
        ),
        (
            "reseed-backend-zfs",
            vec![("reseed-core", None), ("reseed-testkit", Some("dev"))],
        ),
        (
            "reseed-backend-restic",
            vec![("reseed-core", None), ("serde", None)],
        ),
        (
            "reseed-testkit",
            vec![("reseed-core", None), ("reseed-testkit", Some("dev"))],
        ),
        ("reseed-core", vec![("reseed-testkit", Some("dev"))]),
        ("xtask", vec![]),
    ];
    match graph.iter_mut().find(|(name, _)| *name == from) {
        Some((_, arrows)) => arrows.push((to, kind)),
        None => graph.push((from, vec![(to, kind)])),
    }
    let packages: Vec<Value> = graph
        .iter()
        .map(|(name, arrows)| {
            let dependencies: Vec<Value> = arrows
                .iter()
                .map(|(to, kind)| json!({"name": to, "kind": kind}))
                .collect();
            json!({"name": name, "id": format!("path+file:///x#{name}"), "dependencies": dependencies})
        })
        .collect();
    let members: Vec<Value> = packages.iter().map(|package| package["id"].clone()).collect();
    json!({"packages": packages, "workspace_members": members})
}

#[test]
fn arrows_of_the_design_are_accepted() {
    for (from, to, kind) in [
        ("reseed", "reseed-backend-restic", None),
        ("reseed-backend-restic", "reseed-testkit", Some("dev")),
        ("reseed-core", "serde", None),
        ("xtask", "clap", None),
    ] {
        assert_eq!(wrong_arrows(&planted(from, to, kind)), Vec::<String>::new());
    }
}

#[test]
fn every_other_arrow_is_found() {
    for (from, to, kind) in [
        ("reseed-core", "reseed-backend-zfs", None),
        ("reseed-core", "reseed-testkit", None),
        ("reseed-core", "reseed", Some("dev")),
        ("reseed-backend-zfs", "reseed-backend-restic", None),
        ("reseed-backend-zfs", "reseed-backend-restic", Some("dev")),
        ("reseed-backend-zfs", "reseed-testkit", None),
        ("reseed-backend-zfs", "reseed-testkit", Some("build")),
        ("reseed-backend-zfs", "reseed", Some("dev")),
        ("reseed-testkit", "reseed-backend-zfs", Some("dev")),
        ("reseed-testkit", "reseed-backend-zfs", None),
        ("reseed", "reseed-testkit", None),
        ("reseed", "xtask", None),
        ("xtask", "reseed-core", None),
    ] {
        let wrong = wrong_arrows(&planted(from, to, kind));
        assert_eq!(wrong.len(), 1, "{from} -> {to} {kind:?}: {wrong:?}");
        assert!(wrong[0].contains(from) && wrong[0].contains(to), "{wrong:?}");
    }
}

#[test]
fn a_crate_without_a_place_and_an_empty_workspace_are_found() {
    let wrong = wrong_arrows(&planted("reseed-extra", "serde", None));
    assert_eq!(wrong, ["reseed-extra has no place in the design"]);
    assert_eq!(wrong_arrows(&json!({})).len(), 1);
}
