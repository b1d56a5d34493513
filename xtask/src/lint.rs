//! Everything that is checked without running a test.
//!
//! Runs all steps even when one fails, and names those that did.

use crate::{Done, contracts, setup, sh, vm_setup};

/// What has code of its own with the feature.
const LIBZETTA: [&str; 6] = [
    "-p",
    "reseed-backend-zfs",
    "-p",
    "reseed",
    "--features",
    "reseed/libzetta",
];

pub(crate) fn run(yes: bool) -> Done {
    let mut failed = Vec::new();
    let mut step = |name: &'static str, well: Done| {
        match well {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => eprintln!("error: {name}: {error}"),
        }
        failed.push(name);
    };
    step("formatting", cargo(&["fmt", "--all", "--check"], &[]));
    step("generated documents", contracts::check());
    if let Err(why) = setup::ensure(&[setup::CC], yes) {
        step("a C compiler", Err(why.into()));
    }
    // The lint `clippy::incompatible_msrv` holds the declared MSRV: it knows since when each item of std is there.
    let clippy = [
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    step("clippy", cargo(&clippy, &[]));
    let doc = ["doc", "--quiet", "--workspace", "--no-deps"];
    step("documentation", cargo(&doc, &[("RUSTDOCFLAGS", "-D warnings")]));
    // A lint installs nothing beside a compiler; `cargo xtask vm` brings the package, and builds the feature in any case.
    if vm_setup::has_libzfs_core() {
        let with: Vec<&str> = ["clippy", "--quiet"]
            .into_iter()
            .chain(LIBZETTA)
            .chain(["--all-targets", "--", "-D", "warnings"])
            .collect();
        step("clippy with libzetta", cargo(&with, &[]));
        let with: Vec<&str> = ["doc", "--quiet", "--no-deps"]
            .into_iter()
            .chain(LIBZETTA)
            .collect();
        let strict = [("RUSTDOCFLAGS", "-D warnings")];
        step("documentation with libzetta", cargo(&with, &strict));
    } else {
        println!("lints: not looked at: the feature `libzetta`, for libzfslinux-dev is not installed");
    }
    step("dependencies", deny(yes));
    if failed.is_empty() {
        println!("lints: all well");
    } else {
        println!("lints: failed: {}", failed.join(", "));
    }
    Ok(failed.is_empty())
}

fn cargo(args: &[&str], env: &[(&str, &str)]) -> Done {
    let mut command = sh::cargo();
    command.args(args).envs(env.iter().copied());
    Ok(sh::run(&mut command)?)
}

/// Without `advisories`: their database is not in a package registry, and a lint must not depend on another host.
fn deny(yes: bool) -> Done {
    let program = setup::cargo_deny(yes)?;
    let mut command = sh::command(program);
    command.args([
        "--log-level",
        "error",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]);
    Ok(sh::run(&mut command)?)
}
