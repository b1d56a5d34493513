//! Placeholder.

pub mod digest;
