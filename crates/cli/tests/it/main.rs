//! The command as its users have it: the built program, real files, and what it prints.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod bad_input;
mod datasets;
mod demo;
mod engines;
mod heal;
mod interface;
mod lab;
mod offsite;
mod rollback;
mod s3;
