//! The command on real ZFS: protect, break and heal, inside of the virtual machine (`cargo xtask vm`).

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod demo;
mod files;
mod heal;
mod hosts;
#[path = "../it/lab.rs"]
#[allow(
    dead_code,
    reason = "the lab of directories is of no use here, only how the program is run"
)]
mod lab;
mod layout;
mod owner;
mod pools;
mod pull;
mod rollback;
mod sshd;
mod zfs_lab;
