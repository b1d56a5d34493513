//! What virtual machines need from Debian: a kernel with 9p, OpenZFS for it, qemu.
//!
//! Says what it will install and which sources it will add before it does, and asks first when there is somebody to ask.
//! On a machine that has all of it, it reads a few files and does nothing. The one package that it may remove is another ZFS.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::{apt, setup, sh};

/// The file for sources that the machine doesn't have yet.
const SOURCES: &str = "/etc/apt/sources.list.d/reseed-vm.sources";

/// A part that may be missing.
#[derive(Debug, Clone, Copy)]
struct Part {
    packages: &'static str,
    what_for: &'static str,
    from: From,
    there: fn() -> bool,
}

/// Where a part comes from, in the order in which they are installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Stable,
    /// The stable release has an OpenZFS that is years older.
    Backports,
    /// Needs some ZFS, and brings an old one ([`RIVAL`]) when it has nothing to choose from.
    StableAfterZfs,
}

/// Another ZFS, which Debian's sanoid brings to a machine without `contrib`. It can't be installed beside OpenZFS's own tools.
const RIVAL: &str = "zfs-fuse";

const PARTS: &[Part] = &[
    Part {
        packages: "busybox-static",
        what_for: "the machine's first program",
        from: From::Stable,
        there: static_busybox,
    },
    Part {
        packages: "systemd",
        what_for: "machines with systemd as their init",
        from: From::Stable,
        there: || Path::new("/lib/systemd/systemd").exists(),
    },
    Part {
        packages: "openssh-server",
        what_for: "replication to another host in the machine",
        from: From::Stable,
        there: || sh::find("sshd").is_some(),
    },
    Part {
        packages: "openssh-client",
        what_for: "replication to another host in the machine",
        from: From::Stable,
        there: || sh::find("ssh").is_some() && sh::find("ssh-keygen").is_some(),
    },
    Part {
        packages: "pv",
        what_for: "streams with a limit in the machine",
        from: From::Stable,
        there: || sh::find("pv").is_some(),
    },
    Part {
        packages: "iproute2 kmod",
        what_for: "networks inside of the machine",
        from: From::Stable,
        there: || sh::find("ip").is_some() && sh::find("modprobe").is_some(),
    },
    Part {
        packages: "sanoid",
        what_for: "replication by the real syncoid",
        from: From::StableAfterZfs,
        there: || sh::find("syncoid").is_some(),
    },
    // The plain kernel: the one for clouds has no 9p. Its headers are what the module is built with.
    Part {
        packages: "linux-image-amd64 linux-headers-amd64",
        what_for: "the machine's kernel, and building OpenZFS for it",
        from: From::Stable,
        there: || !kernels("9p.ko").is_empty(),
    },
    Part {
        packages: "zfs-dkms",
        what_for: "OpenZFS in the machine's kernel; it is compiled, which takes some minutes",
        from: From::Backports,
        there: || usable_kernel().is_some(),
    },
    Part {
        packages: "zfsutils-linux",
        what_for: "the commands zfs and zpool",
        from: From::Backports,
        there: || sh::find("zpool").is_some() && sh::find("zfs").is_some() && sh::find(RIVAL).is_none(),
    },
    Part {
        packages: "pkg-config",
        what_for: "finding libzfs_core",
        from: From::Stable,
        there: || sh::find("pkg-config").is_some(),
    },
    Part {
        packages: "libzfslinux-dev",
        what_for: "the tests of the feature `libzetta`",
        from: From::Backports,
        there: has_libzfs_core,
    },
    Part {
        packages: "qemu-system-x86",
        what_for: "the machine itself",
        from: From::Backports,
        there: || sh::find("qemu-system-x86_64").is_some(),
    },
];

/// Makes sure that machines can be booted. The error fits behind "skipped: ".
pub(crate) fn ensure(yes: bool) -> Result<(), String> {
    if std::env::consts::ARCH != "x86_64" {
        return Err("virtual machines are for x86_64 hosts only so far".to_owned());
    }
    let missing: Vec<Part> = PARTS.iter().copied().filter(|part| !(part.there)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let first = missing[0].packages;
    let codename = codename(&std::fs::read_to_string("/etc/os-release").unwrap_or_default())
        .ok_or_else(|| format!("{first} is missing and this is no Debian"))?;
    let more = apt::missing(&sources(), &codename)?;
    eprintln!("These Debian packages will be installed:");
    for part in &missing {
        eprintln!("  {}, for {}", part.packages, part.what_for);
    }
    if let Some(text) = &more {
        eprintln!("These sources will be added in {SOURCES}:");
        for line in text.lines().filter(|line| !line.is_empty()) {
            eprintln!("  {line}");
        }
    }
    if sh::find(RIVAL).is_some() {
        eprintln!("{RIVAL} will be removed: OpenZFS's own tools can't be installed beside it.");
    }
    if !setup::is_root() {
        return Err(format!("{first} is missing and only root can install it"));
    }
    if !setup::agreed(yes)? {
        return Err(format!("{first} is missing and was not wanted"));
    }
    if let Some(text) = &more {
        let before = std::fs::read_to_string(SOURCES).unwrap_or_default();
        std::fs::write(SOURCES, format!("{before}{text}"))
            .map_err(|error| format!("{SOURCES} can't be written: {error}"))?;
    }
    setup::apt_get(&["update"])?;
    let backports = format!("{codename}-backports");
    for (from, target) in [
        (From::Stable, None),
        (From::Backports, Some(backports.as_str())),
        (From::StableAfterZfs, None),
    ] {
        let packages: Vec<&str> = missing
            .iter()
            .filter(|part| part.from == from)
            .flat_map(|part| part.packages.split(' '))
            .collect();
        if packages.is_empty() {
            continue;
        }
        let mut install = vec!["install", "--yes", "--no-install-recommends"];
        install.extend(target.iter().flat_map(|target| ["-t", *target]));
        install.extend(&packages);
        only_the_rival_goes(&install)?;
        if !setup::apt_get(&install)? {
            return Err(format!(
                "apt-get install {} failed, see above",
                packages.join(" ")
            ));
        }
    }
    compile_if_needed()?;
    match PARTS.iter().find(|part| !(part.there)()) {
        Some(part) => Err(format!(
            "{} is installed and does not help: {}",
            part.packages, part.what_for
        )),
        None => Ok(()),
    }
}

/// Asks apt what it would remove.
fn only_the_rival_goes(install: &[&str]) -> Result<(), String> {
    let mut command = sh::command("apt-get");
    let said = sh::output(command.args(["-q", "--simulate"]).args(install))
        .map_err(|error| format!("apt-get does not run: {error}"))?;
    match removed(&said.stdout).find(|package| *package != RIVAL) {
        Some(package) => Err(format!(
            "apt would remove {package} for it; run `apt-get {}` yourself if that is right",
            install.join(" ")
        )),
        None => Ok(()),
    }
}

/// The packages that a simulated run of apt-get removes.
fn removed(simulated: &str) -> impl Iterator<Item = &str> {
    simulated
        .lines()
        .filter_map(|line| line.strip_prefix("Remv ")?.split_whitespace().next())
}

/// Where zfs-dkms was there before the kernel's headers, nobody has compiled for that kernel.
fn compile_if_needed() -> Result<(), String> {
    let Some(kernel) = kernels("9p.ko").pop() else {
        return Ok(());
    };
    if usable_kernel().is_none() {
        sh::run(sh::command("dkms").args(["autoinstall", "-k", &kernel]))
            .map_err(|error| format!("dkms does not run: {error}"))?;
    }
    Ok(())
}

/// Whether programs can be linked with libzfs_core.
pub(crate) fn has_libzfs_core() -> bool {
    let description = format!(
        "/usr/lib/{}-linux-gnu/pkgconfig/libzfs_core.pc",
        std::env::consts::ARCH
    );
    Path::new(&description).exists()
}

/// Kernels in /boot that have a module of this name, the newest last.
fn kernels(module: &str) -> Vec<String> {
    let names = std::fs::read_dir("/boot").into_iter().flatten().flatten();
    let versions = names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| Some(name.strip_prefix("vmlinuz-")?.to_owned()));
    let has = |version: &String| {
        let list = Path::new("/lib/modules").join(version).join("modules.dep");
        has_module(&std::fs::read_to_string(list).unwrap_or_default(), module)
    };
    let mut versions: Vec<String> = versions.filter(has).collect();
    versions.sort_by_key(|version| in_order(version));
    versions
}

/// By what kernels are sorted: 6.1.0-40 is newer than 6.1.0-9.
fn in_order(version: &str) -> (Vec<u64>, String) {
    let numbers = version.split(|c: char| !c.is_ascii_digit());
    let numbers = numbers.filter_map(|number| number.parse().ok()).collect();
    (numbers, version.to_owned())
}

fn usable_kernel() -> Option<String> {
    let with_9p = kernels("9p.ko");
    kernels("zfs.ko")
        .into_iter()
        .rfind(|version| with_9p.contains(version))
}

/// Whether modules.dep lists it, compressed or not.
fn has_module(dep: &str, module: &str) -> bool {
    let files = dep.lines().filter_map(|line| line.split(':').next());
    files.filter_map(|file| file.rsplit('/').next()).any(|name| {
        name.strip_prefix(module)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// Debian's dynamic busybox has the same path and can't be a first program.
fn static_busybox() -> bool {
    let loader = b"/ld-linux";
    std::fs::read("/bin/busybox").is_ok_and(|bytes| !bytes.windows(loader.len()).any(|part| part == loader))
}

/// The release's name, if this is a Debian.
pub(crate) fn codename(os_release: &str) -> Option<String> {
    let value = |name: &str| {
        let mut lines = os_release.lines().filter_map(|line| line.split_once('='));
        lines
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.trim_matches('"').to_owned())
    };
    value("ID").filter(|id| id == "debian")?;
    value("VERSION_CODENAME")
}

pub(crate) fn sources() -> Vec<apt::Source> {
    let mut sources = apt::one_line(&std::fs::read_to_string("/etc/apt/sources.list").unwrap_or_default());
    let dir = std::fs::read_dir("/etc/apt/sources.list.d");
    let mut files: Vec<PathBuf> = dir
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        match file.extension().and_then(|ending| ending.to_str()) {
            Some("sources") => sources.extend(apt::deb822(&text)),
            Some("list") => sources.extend(apt::one_line(&text)),
            _ => {}
        }
    }
    sources
}

/// What machines run with, for the summary.
pub(crate) fn versions() -> String {
    let mut text = format!("Linux {}", usable_kernel().unwrap_or_default());
    let zfs = sh::find("zfs").and_then(|zfs| sh::output(sh::command(zfs).arg("--version")).ok());
    // Outside of the machine the second line, the module's version, is an error.
    if let Some(line) = zfs.as_ref().and_then(|said| said.stdout.lines().next()) {
        let _ = write!(text, ", {line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debian_is_told_by_its_own_file() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        assert_eq!(codename(debian).as_deref(), Some("bookworm"));
        assert_eq!(codename("ID=nixos\nVERSION_CODENAME=x\n"), None);
        assert_eq!(codename(""), None);
    }

    #[test]
    fn what_apt_would_remove_is_read_from_its_simulation() {
        let said = "The following packages will be REMOVED:\n  zfs-fuse\n\
                    Remv zfs-fuse [0.7.0-25+b1] [sanoid:amd64 ]\nInst libnvpair3linux (2.3.2-2~bpo12+2 Debian)\n";
        assert_eq!(removed(said).collect::<Vec<_>>(), ["zfs-fuse"]);
        assert_eq!(removed("Inst pv (1.6.20-1)\n").count(), 0);
    }

    #[test]
    fn the_newest_kernel_is_the_last() {
        let mut all = ["6.10.2-amd64", "6.1.0-40-amd64", "6.1.0-9-amd64", "6.9.7-amd64"];
        all.sort_by_key(|version| in_order(version));
        assert_eq!(
            all,
            ["6.1.0-9-amd64", "6.1.0-40-amd64", "6.9.7-amd64", "6.10.2-amd64"]
        );
    }

    #[test]
    fn a_module_is_found_by_its_whole_name() {
        let dep = "kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko\nupdates/dkms/zfs.ko.xz: updates/dkms/spl.ko\n";
        assert!(has_module(dep, "9p.ko") && has_module(dep, "zfs.ko"));
        assert!(!has_module(dep, "p.ko") && !has_module(dep, "9pnet.ko"));
    }
}
