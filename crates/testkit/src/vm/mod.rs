//! Virtual machines with real OpenZFS, for tests that need a kernel of their own: pools, power cuts, systemd.
//!
//! A [`Machine`] boots this host's Debian kernel under qemu. It sees the host's whole root, so what was built here runs
//! there, and changes nothing of it; what it has to say comes back over a share. [`suite`] runs tests inside, many in one
//! boot; [`guest`] and [`pool`] are for those tests themselves. How to write one is in CONTRIBUTING.md.
//!
//! It installs nothing (`cargo xtask vm` does) and knows nothing of what is tested. A power cut is the death of qemu: what
//! the guest had not yet written to its disk is lost, what it had written is there, flushed or not.

mod cpio;
mod error;
pub mod guest;
mod initrd;
mod kernel;
mod machine;
pub mod pool;
mod qemu;
pub mod suite;

pub use error::{Problem, VmError};
pub use initrd::cache_dir;
pub use machine::{Finished, GuestCommand, Machine, RunId};
pub use qemu::{Accel, Config, Disk, Init};

use std::path::PathBuf;

/// What to start, and with what, for a machine whose console is the terminal of whoever starts it: a prompt inside.
/// Its first element is the program.
pub fn shell_argv(config: &Config) -> Result<Vec<std::ffi::OsString>, VmError> {
    let boot = initrd::prepare()?;
    let files = machine::prepare_dir(config)?;
    let mut argv = vec!["qemu-system-x86_64".into()];
    argv.extend(qemu::argv(
        config,
        &boot,
        &files,
        Accel::of_this_host(),
        qemu::Console::of_this_terminal(),
    ));
    Ok(argv)
}

/// What a machine is booted from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Boot {
    kernel: PathBuf,
    initrd: PathBuf,
}
