//! Which kernel to boot, and which of its modules to load in which order. Reads what Debian's packages put in /boot and
//! /lib/modules; needs no module tools.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::VmError;

/// What the machine needs to see disks, the host's files and pools.
const WANTED: &[&str] = &[
    "virtio_pci",
    "9pnet_virtio",
    "9p",
    "overlay",
    "virtio_blk",
    "virtio_rng",
    "zfs",
];

/// Those without which a kernel can't be used at all, built in or not; the others may be built in under another name.
const NEEDED: &[&str] = &["9p", "zfs"];

/// A kernel that can run the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kernel {
    pub(super) version: String,
    pub(super) image: PathBuf,
    /// Files of the modules, each after those that it depends on.
    pub(super) modules: Vec<PathBuf>,
}

/// The newest kernel below `root` that has all that is needed.
pub(super) fn find(root: &Path) -> Result<Kernel, VmError> {
    let boot = root.join("boot");
    let entries = std::fs::read_dir(&boot)
        .map_err(|error| VmError::setup(format!("{} can't be read: {error}", boot.display())))?;
    let mut versions: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| Some(name.strip_prefix("vmlinuz-")?.to_owned()))
        .collect();
    versions.sort_by_key(|version| std::cmp::Reverse(numbers(version)));
    let mut whys = Vec::new();
    for version in versions {
        match with_modules(root, &version) {
            Ok(kernel) => return Ok(kernel),
            Err(why) => whys.push(format!("{version}: {why}")),
        }
    }
    if whys.is_empty() {
        whys.push("there is none in /boot".to_owned());
    }
    Err(VmError::setup(format!(
        "no kernel for the virtual machine ({}); `cargo xtask vm` installs one",
        whys.join("; ")
    )))
}

fn with_modules(root: &Path, version: &str) -> Result<Kernel, String> {
    let dir = root.join("lib/modules").join(version);
    let read = |name: &str| {
        std::fs::read_to_string(dir.join(name)).map_err(|error| format!("{name} can't be read: {error}"))
    };
    let order = load_order(WANTED, NEEDED, &read("modules.dep")?, &read("modules.builtin")?)?;
    Ok(Kernel {
        version: version.to_owned(),
        image: root.join("boot").join(format!("vmlinuz-{version}")),
        modules: order.into_iter().map(|file| dir.join(file)).collect(),
    })
}

/// The numbers in a version, so that 6.1.0-56 is newer than 6.1.0-9.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

/// Files of modules in the order in which they can be loaded, from the text of modules.dep and modules.builtin.
fn load_order(wanted: &[&str], needed: &[&str], dep: &str, builtin: &str) -> Result<Vec<String>, String> {
    let builtin: BTreeSet<String> = builtin.lines().map(module_name).collect();
    let mut depends: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut files: BTreeMap<String, &str> = BTreeMap::new();
    for line in dep.lines() {
        if let Some((file, needs)) = line.split_once(':') {
            depends.insert(file, needs.split_whitespace().collect());
            files.insert(module_name(file), file);
        }
    }
    let mut order = Vec::new();
    for want in wanted {
        match files.get(&want.replace('-', "_")) {
            Some(file) => visit(file, &depends, &mut order, &mut BTreeSet::new())?,
            None if builtin.contains(*want) || !needed.contains(want) => {}
            None => return Err(format!("it has no module {want}")),
        }
    }
    Ok(order)
}

fn visit<'a>(
    file: &'a str,
    depends: &BTreeMap<&'a str, Vec<&'a str>>,
    order: &mut Vec<String>,
    above: &mut BTreeSet<&'a str>,
) -> Result<(), String> {
    if order.iter().any(|done| done == file) {
        return Ok(());
    }
    if !above.insert(file) {
        return Err(format!("{file} depends on itself"));
    }
    for need in depends.get(file).into_iter().flatten() {
        visit(need, depends, order, above)?;
    }
    above.remove(file);
    order.push(file.to_owned());
    Ok(())
}

/// `kernel/fs/9p/9p.ko.xz` is the module `9p`; the kernel doesn't tell `-` and `_` apart.
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/net/9p/9pnet.ko:\n\
        kernel/net/9p/9pnet_virtio.ko: kernel/drivers/virtio/virtio_ring.ko kernel/net/9p/9pnet.ko kernel/drivers/virtio/virtio.ko\n\
        kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko\n\
        kernel/drivers/virtio/virtio.ko:\n\
        updates/dkms/zfs.ko.xz: updates/dkms/spl.ko.xz\n\
        updates/dkms/spl.ko.xz:\n";

    #[test]
    fn a_module_comes_after_what_it_depends_on_and_once() {
        let order = load_order(&["9pnet_virtio", "zfs", "9pnet"], &["zfs"], DEP, "").unwrap();
        assert_eq!(
            order,
            [
                "kernel/drivers/virtio/virtio.ko",
                "kernel/drivers/virtio/virtio_ring.ko",
                "kernel/net/9p/9pnet.ko",
                "kernel/net/9p/9pnet_virtio.ko",
                "updates/dkms/spl.ko.xz",
                "updates/dkms/zfs.ko.xz",
            ]
        );
    }

    #[test]
    fn what_is_built_in_needs_no_module_and_what_is_missing_is_told() {
        let builtin = "kernel/fs/9p/9p.ko\n";
        let order = load_order(&["9p", "virtio-rng"], &["9p"], DEP, builtin).unwrap();
        assert_eq!(order, Vec::<String>::new());
        let missing = load_order(&["9p"], &["9p"], DEP, "").unwrap_err();
        assert_eq!(missing, "it has no module 9p");
    }

    #[test]
    fn a_circle_is_an_error_and_not_a_hang() {
        let circle = load_order(&["a"], &[], "a.ko: b.ko\nb.ko: a.ko\n", "").unwrap_err();
        assert!(circle.contains("depends on itself"), "{circle}");
    }

    #[test]
    fn newer_is_told_by_numbers() {
        assert!(numbers("6.1.0-56-amd64") > numbers("6.1.0-9-amd64"));
        assert!(numbers("6.12.3-amd64") > numbers("6.1.0-56-amd64"));
    }
}
