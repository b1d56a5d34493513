//! What a task needs beside cargo, and getting it on Debian.
//!
//! Says what it will install before it does, and asks first when there is somebody to ask. Never removes or upgrades anything.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

use crate::sh;

/// A program that something needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    /// The program.
    pub(crate) program: &'static str,
    /// The Debian package that has it.
    pub(crate) package: &'static str,
    /// What for, as in "restic, for …".
    pub(crate) what_for: &'static str,
}

/// A C compiler: SQLite and BLAKE3 are built from C and assembly.
pub(crate) const CC: Need = Need {
    program: "cc",
    package: "gcc libc6-dev",
    what_for: "building SQLite and BLAKE3",
};
/// The reference implementation of the repository format.
pub(crate) const RESTIC: Need = Need {
    program: "restic",
    package: "restic",
    what_for: "reading our repositories with the real restic, and the other way round",
};
/// The reference for retention and for sanoid.conf.
pub(crate) const SANOID: Need = Need {
    program: "sanoid",
    package: "sanoid",
    what_for: "comparing retention with the real sanoid",
};
/// A clock that stands still, for comparing with sanoid at chosen moments.
pub(crate) const FAKETIME: Need = Need {
    program: "faketime",
    package: "faketime",
    what_for: "showing sanoid the moment that reseed decides for",
};
/// By which restic reaches a repository over sftp, and what it reaches there.
pub(crate) const SSH: Need = Need {
    program: "ssh",
    package: "openssh-client",
    what_for: "repositories over sftp",
};
pub(crate) const SSHD: Need = Need {
    program: "sshd",
    package: "openssh-server",
    what_for: "repositories over sftp",
};
/// Garage is built with a libsodium of its own.
pub(crate) const MAKE: Need = Need {
    program: "make",
    package: "make",
    what_for: "building the S3 server Garage",
};
/// The reference for digests.
pub(crate) const B3SUM: Need = Need {
    program: "b3sum",
    package: "b3sum",
    what_for: "comparing the tree digest's speed",
};

/// Makes sure that all of these are there.
///
/// The error says why something is not, in a form that fits behind "skipped: ".
pub(crate) fn ensure(needs: &[Need], yes: bool) -> Result<(), String> {
    let missing: Vec<Need> = needs
        .iter()
        .copied()
        .filter(|need| sh::find(need.program).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.package.split(' ')).collect();
    let by_hand = format!("`apt-get install {}`", packages.join(" "));
    eprintln!("These Debian packages will be installed:");
    for need in &missing {
        eprintln!("  {} ({}), for {}", need.package, need.program, need.what_for);
    }
    if sh::find("apt-get").is_none() {
        return Err(format!(
            "{} is missing and this is no Debian: install what {by_hand} would",
            missing[0].program
        ));
    }
    if !is_root() {
        return Err(format!(
            "{} is missing and only root can install it: run {by_hand}",
            missing[0].program
        ));
    }
    if !agreed(yes)? {
        return Err(format!(
            "{} is missing and was not wanted: run {by_hand}",
            missing[0].program
        ));
    }
    // A new machine has no package lists yet. One whose lists can't be brought up to date may still know the packages.
    apt_get(&["update"])?;
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(&packages);
    if !apt_get(&install)? {
        return Err(format!("{by_hand} failed, see above"));
    }
    match missing.iter().find(|need| sh::find(need.program).is_none()) {
        Some(need) => Err(format!(
            "{} is still not on the path after {by_hand}",
            need.program
        )),
        None => Ok(()),
    }
}

/// Runs apt-get, and says whether it ended well.
pub(crate) fn apt_get(args: &[&str]) -> Result<bool, String> {
    let mut command = sh::command("apt-get");
    // A machine that has just booted may still be at its own updates.
    command.args(["-q", "-o", "DPkg::Lock::Timeout=300"]).args(args);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    sh::run(&mut command).map_err(|error| format!("apt-get does not run: {error}"))
}

/// Asks, where there is a terminal and nobody has said yes beforehand. No terminal and CI mean yes.
pub(crate) fn agreed(yes: bool) -> Result<bool, String> {
    if yes || sh::in_ci() || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(true);
    }
    eprint!("Go on? [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| format!("no answer: {error}"))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

pub(crate) fn is_root() -> bool {
    // The owner of our own entry in /proc is our effective user.
    std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0)
}

/// A program that cargo builds from the registry.
struct Tool {
    name: &'static str,
    version: &'static str,
    args: &'static [&'static str],
    /// What it is built with.
    needs: &'static [Need],
    minutes: u32,
}

/// The version is the one that deny.toml is written for.
const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    args: &[],
    needs: &[CC],
    minutes: 2,
};
/// An S3 server that others use. Without what only clusters need.
const GARAGE: Tool = Tool {
    name: "garage",
    version: "2.5.0",
    args: &["--no-default-features", "--features", "sqlite,bundled-libs"],
    needs: &[CC, MAKE],
    minutes: 10,
};

/// Finds cargo-deny, or builds it once.
pub(crate) fn cargo_deny(yes: bool) -> Result<PathBuf, String> {
    match sh::find(CARGO_DENY.name) {
        Some(found) => Ok(found),
        None => CARGO_DENY.ensure(yes),
    }
}

/// Garage of that version, which is built once.
pub(crate) fn garage(yes: bool) -> Result<PathBuf, String> {
    GARAGE.ensure(yes)
}

impl Tool {
    /// Builds it once into a cache of our own, outside of the user's cargo.
    ///
    /// Built without optimisation: that takes a tenth of the time that their own profiles (whole-program optimisation) do.
    fn ensure(&self, yes: bool) -> Result<PathBuf, String> {
        let Self { name, version, .. } = self;
        let tools = cache_dir().join(format!("{name}-{version}"));
        let program = tools.join("bin").join(name);
        if program.is_file() {
            return Ok(program);
        }
        eprintln!(
            "{name} {version} will be built and installed in {}; on two processors that takes some {} minutes",
            tools.display(),
            self.minutes
        );
        if !agreed(yes)? {
            return Err(format!("{name} is missing and was not wanted"));
        }
        ensure(self.needs, yes)?;
        let build = tools.join("build");
        let mut install = sh::cargo();
        install.args(["install", "--quiet", "--locked", name, "--version", version]);
        install.args(self.args).arg("--root").arg(&tools);
        install.env("CARGO_TARGET_DIR", &build);
        for (key, value) in [
            ("OPT_LEVEL", "0"),
            ("LTO", "off"),
            ("CODEGEN_UNITS", "16"),
            ("DEBUG", "0"),
        ] {
            install.env(format!("CARGO_PROFILE_RELEASE_{key}"), value);
        }
        let installed = sh::run(&mut install).map_err(|error| format!("cargo does not run: {error}"))?;
        // Only what it was built in; the program stays.
        let _ = std::fs::remove_dir_all(build);
        if installed && program.is_file() {
            Ok(program)
        } else {
            Err(format!("{name} could not be installed, see above"))
        }
    }
}

pub(crate) fn cache_dir() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .unwrap_or_else(|| sh::root().join("target"));
    base.join("reseed-xtask")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_installed_again() {
        let shell = Need {
            program: "sh",
            package: "no-such-package",
            what_for: "this test",
        };
        assert_eq!(ensure(&[shell], true), Ok(()));
    }
}
