//! The test kit: what reseed's parts are tested against, and what others can test theirs against.
//!
//! - [`world`]: a strict world in memory with a fake of each of the five traits
//! - [`conformance`]: a suite for each trait, named after its clauses, over any backend
//! - [`faults`]: rules that make any backend fail
//! - `s3`, with the feature of that name: an S3 server in this process, with faults
//! - [`sim`]: the simulator, which draws whole histories of a lab and checks what must always hold
//! - [`files`]: writing and comparing trees, real ones and those of the world
//! - [`vm`]: virtual machines with real OpenZFS, and running tests inside

pub mod conformance;
pub mod faults;
pub mod files;
#[cfg(feature = "s3")]
pub mod s3;
pub mod sim;
pub mod vm;
pub mod world;
