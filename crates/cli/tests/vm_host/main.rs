//! The command on a machine that loses its power in the middle of it, boots again, and is told the same once more.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod home;
mod power;
