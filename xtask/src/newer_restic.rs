//! A second, newer restic beside the one that is installed: that of Debian's next release.
//!
//! It comes from the archive that the machine's own packages are from, is checked by apt against the same keys, and is unpacked
//! into a cache of our own. Nothing is installed, no list or source of the machine is touched, and no root is needed.

use std::path::{Path, PathBuf};

use crate::{apt, setup, sh, vm_setup};

/// The release that has it.
const RELEASE: &str = "trixie";

/// Makes sure that it is there; the program's path. The error fits behind "skipped: ".
pub(crate) fn ensure(yes: bool) -> Result<PathBuf, String> {
    let dir = setup::cache_dir().join(format!("restic-{RELEASE}"));
    let program = dir.join("root/usr/bin/restic");
    if program.is_file() {
        return Ok(program);
    }
    let missing = |why: String| format!("a newer restic is missing: {why}");
    let codename = vm_setup::codename(&std::fs::read_to_string("/etc/os-release").unwrap_or_default())
        .ok_or_else(|| missing("this is no Debian".to_owned()))?;
    let source = apt::release(&vm_setup::sources(), &codename, RELEASE).map_err(missing)?;
    eprintln!(
        "restic of Debian {RELEASE} will be downloaded and unpacked, not installed, in {}",
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
    // A new attempt must not find two packages.
    for old in debs(&dir.join("deb")) {
        std::fs::remove_file(old).map_err(fail)?;
    }
    for args in [&["update"][..], &["download", "restic"]] {
        if !apt_get(&dir, args)? {
            return Err(missing(format!("apt-get {} failed, see above", args.join(" "))));
        }
    }
    let deb = debs(&dir.join("deb")).pop();
    let deb = deb.ok_or_else(|| missing("apt-get downloaded nothing".to_owned()))?;
    let mut unpack = sh::command("dpkg-deb");
    unpack.arg("-x").arg(deb).arg(dir.join("root"));
    let unpacked =
        sh::run(&mut unpack).map_err(|error| missing(format!("dpkg-deb does not run: {error}")))?;
    // Some thirty megabytes that nobody needs any more.
    let _ = std::fs::remove_dir_all(dir.join("lists"));
    if unpacked && program.is_file() {
        Ok(program)
    } else {
        Err(missing("it could not be unpacked, see above".to_owned()))
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
    fn real_it_is_unpacked_beside_the_one_that_is_installed() {
        let program = ensure(true).unwrap();
        let said = sh::output(sh::command(&program).arg("version")).unwrap();
        assert!(said.stdout.starts_with("restic 0.18"), "{}", said.stdout);
        // A second time it is only looked for.
        assert_eq!(ensure(true), Ok(program));
    }
}
