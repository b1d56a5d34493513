//! Against real OpenZFS: runs inside of a virtual machine, by `cargo xtask vm`.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod smoke;
