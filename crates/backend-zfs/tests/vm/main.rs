//! Against real OpenZFS: runs inside of a virtual machine, by `cargo xtask vm`.

mod smoke;
