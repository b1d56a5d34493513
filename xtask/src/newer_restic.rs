//! A second, newer restic beside the one that is installed, and restic's own server: those of Debian's next release.
//!
//! They come from the archive that the machine's own packages are from, are checked by apt against the same keys, and are unpacked
//! into a cache of our own. Nothing is installed, no list or source of the machine is touched, and no root is needed.

use std::path::{Path, PathBuf};

use crate::{apt, setup, sh, vm_setup};

/// The release that has them.
const RELEASE: &str = "trixie";
/// Each has one program, of the same name.
const PACKAGES: [&str; 2] = ["restic", "restic-rest-server"];

/// Where the programs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Newer {
    pub(crate) restic: PathBuf,
    pub(crate) rest_server: PathBuf,
}

/// Makes sure that both are there. The error fits behind "skipped: ".
pub(crate) fn ensure(yes: bool) -> Result<Newer, String> {
    let dir = setup::cache_dir().join(format!("restic-{RELEASE}"));
    let [restic, rest_server] = PACKAGES.map(|package| dir.join("root/usr/bin").join(package));
    let newer = Newer { restic, rest_server };
    let there = || newer.restic.is_file() && newer.rest_server.is_file();
    if there() {
        return Ok(newer);
    }
    let missing = |why: String| format!("a newer restic is missing: {why}");
    let codename = vm_setup::codename(&std::fs::read_to_string("/etc/os-release").unwrap_or_default())
        .ok_or_else(|| missing("this is no Debian".to_owned()))?;
    let source = apt::release(&vm_setup::sources(), &codename, RELEASE).map_err(missing)?;
    eprintln!(
        "{} of Debian {RELEASE} will be downloaded and unpacked, not installed, in {}",
        PACKAGES.join(" and "),
        dir.display()
    );
    if !setup::agreed(yes)? {
        return Err(missing("it was not wanted".to_owned()));
    }
    let fail = |error: std::io::Error| missing(format!("{}: {error}", dir.display()));
    for name in [
        "sources",
        "lists/partial",
        "cache/archives/partial",
        "deb",
        "root",
    ] {
        std::fs::create_dir_all(dir.join(name)).map_err(fail)?;
    }
    std::fs::write(dir.join("sources/newer.sources"), source).map_err(fail)?;
    // A new attempt must not find those of an old one.
    for old in debs(&dir.join("deb")) {
        std::fs::remove_file(old).map_err(fail)?;
    }
    let download = ["download", PACKAGES[0], PACKAGES[1]];
    for args in [&["update"][..], &download] {
        if !apt_get(&dir, args)? {
            return Err(missing(format!("apt-get {} failed, see above", args.join(" "))));
        }
    }
    let mut unpacked = true;
    for deb in debs(&dir.join("deb")) {
        let mut unpack = sh::command("dpkg-deb");
        unpack.arg("-x").arg(deb).arg(dir.join("root"));
        unpacked &=
            sh::run(&mut unpack).map_err(|error| missing(format!("dpkg-deb does not run: {error}")))?;
    }
    // Some thirty megabytes that nobody needs any more.
    let _ = std::fs::remove_dir_all(dir.join("lists"));
    if unpacked && there() {
        Ok(newer)
    } else {
        Err(missing(
            "it could not be downloaded and unpacked, see above".to_owned(),
        ))
    }
}

/// With everything that apt reads and writes in the directory, but the keys.
fn apt_get(dir: &Path, args: &[&str]) -> Result<bool, String> {
    let mut command = sh::command("apt-get");
    let option = |name: &str, path: PathBuf| format!("{name}={}", path.display());
    for option in [
        "Dir::Etc::sourcelist=/dev/null".to_owned(),
        option("Dir::Etc::sourceparts", dir.join("sources")),
        option("Dir::State::lists", dir.join("lists")),
        option("Dir::Cache", dir.join("cache")),
        // Nobody else need be able to read there.
        "APT::Sandbox::User=root".to_owned(),
        "Acquire::Languages=none".to_owned(),
    ] {
        command.arg("-o").arg(option);
    }
    command.arg("-q").args(args).current_dir(dir.join("deb"));
    command.env("DEBIAN_FRONTEND", "noninteractive");
    sh::run(&mut command).map_err(|error| format!("apt-get does not run: {error}"))
}

fn debs(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let is_deb = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "deb");
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_deb).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_both_are_unpacked_beside_what_is_installed() {
        let newer = ensure(true).unwrap();
        for (program, asking, answer) in [
            (&newer.restic, "version", "restic 0.18"),
            (&newer.rest_server, "--version", "restic-rest-server version"),
        ] {
            let said = sh::output(sh::command(program).arg(asking)).unwrap();
            assert!(said.stdout.starts_with(answer), "{}", said.stdout);
        }
        // A second time they are only looked for.
        assert_eq!(ensure(true), Ok(newer));
    }
}
