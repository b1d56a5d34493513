//! ZFS, through its own tools.

mod argv;
mod error;
mod parse;
mod tool;
mod version;

pub use version::{Installed, LEAST, Version};
