//! Repositories in S3 that can't be had, or not as they should be. The server is in this process, checks keys and regions, and
//! fails by rules.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod ageing;
mod bad_input;
#[path = "../common/mod.rs"]
mod common;
mod faults;
mod init;
mod lab;
mod lifecycle;
mod ways_in;
