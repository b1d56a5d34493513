//! The test kit: what reseed's parts are tested against, and what others can test theirs against.
//!
//! - [`world`]: a strict world in memory with a fake of each of the five traits
//! - [`conformance`]: a suite for each trait, named after its clauses, over any backend
//! - [`faults`]: rules that make any backend fail
//! - [`files`]: writing and comparing trees, real ones and those of the world

pub mod conformance;
pub mod faults;
pub mod files;
pub mod world;
