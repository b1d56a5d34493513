//! Operations whose calls themselves are the point, so this is where mocks are used.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod backup;
mod check;
mod doubt;
mod forget;
mod lock;
mod mocks;
mod preseed;
mod replicate;
