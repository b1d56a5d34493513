//! Power cuts, from the host: the machine dies in the middle of a restore, boots again, and the same command converges.
//!
//! The test runs on the host and in the machine: there it is started with `RESEED_GUEST_STEP`, and does that step.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
#![allow(
    clippy::print_stdout,
    reason = "what a test drew and measured is shown when it fails"
)]

#[path = "../vm/chain.rs"]
#[allow(dead_code, reason = "shared with the tests inside")]
mod chain;
#[path = "../vm/lab.rs"]
#[allow(dead_code, reason = "shared with the tests inside")]
mod lab;
mod power;
#[path = "../vm/source_lab.rs"]
#[allow(dead_code, reason = "shared with the tests inside")]
mod source_lab;
