//! The initrd: busybox, our first program, the kernel's modules. Built once for each combination of them and kept in the
//! user's cache. Not compressed: unpacking would take longer under emulation than reading does.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::cpio::Archive;
use super::kernel::{self, Kernel};
use super::{Boot, VmError};

/// Debian's busybox-static: it runs before there is a C library.
const BUSYBOX: &str = "/bin/busybox";

const PARTS: &[(&str, &str)] = &[
    ("init", include_str!("guest/init.sh")),
    ("agent.sh", include_str!("guest/agent.sh")),
    ("masked", include_str!("guest/masked")),
    (
        "units/reseed-agent.service",
        include_str!("guest/reseed-agent.service"),
    ),
    ("units/reseed.target", include_str!("guest/reseed.target")),
];

/// Where machines' files that are worth keeping are.
pub fn cache_dir() -> PathBuf {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("reseed-xtask/vm")
}

/// The kernel and an initrd for it, built when there is none yet.
pub(super) fn prepare() -> Result<Boot, VmError> {
    let kernel = kernel::find(Path::new("/"))?;
    let busybox = std::fs::read(BUSYBOX).map_err(|error| {
        VmError::setup(format!(
            "{BUSYBOX} can't be read ({error}): install busybox-static"
        ))
    })?;
    let cache = cache_dir();
    let cannot = |error: std::io::Error| VmError::setup(format!("no initrd in {}: {error}", cache.display()));
    let initrd = cache.join(format!("initrd-{}", key(&kernel, &busybox).map_err(cannot)?));
    if !initrd.is_file() {
        std::fs::create_dir_all(&cache).map_err(cannot)?;
        // Two that build it at once each rename a file of their own into place.
        let building = cache.join(format!("building-{}", std::process::id()));
        std::fs::write(&building, build(&kernel, &busybox).map_err(cannot)?).map_err(cannot)?;
        std::fs::rename(&building, &initrd).map_err(cannot)?;
    }
    Ok(Boot {
        kernel: kernel.image,
        initrd,
    })
}

/// Changes with the kernel, with each module (a newly built one has another time) and with our own parts.
fn key(kernel: &Kernel, busybox: &[u8]) -> std::io::Result<String> {
    let mut hash = blake3::Hasher::new();
    hash.update(kernel.version.as_bytes());
    for module in &kernel.modules {
        let meta = std::fs::metadata(module)?;
        let line = format!("{} {} {}\n", module.display(), meta.len(), meta.mtime());
        hash.update(line.as_bytes());
    }
    hash.update(busybox);
    for (name, content) in PARTS {
        hash.update(name.as_bytes()).update(content.as_bytes());
    }
    Ok(hash.finalize().to_hex()[..16].to_owned())
}

fn build(kernel: &Kernel, busybox: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut archive = Archive::default();
    for dir in ["bin", "mods", "units", "newroot"] {
        archive.directory(dir);
    }
    archive.file("bin/busybox", busybox);
    archive.link("bin/sh", "busybox");
    let mut order = String::new();
    for (number, module) in kernel.modules.iter().enumerate() {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{number:02}-{name}");
        archive.file(&format!("mods/{name}"), &std::fs::read(module)?);
        order.push_str(&name);
        order.push('\n');
    }
    archive.file("mods/order", order.as_bytes());
    for (name, content) in PARTS {
        archive.file(name, content.as_bytes());
    }
    Ok(archive.finish())
}
