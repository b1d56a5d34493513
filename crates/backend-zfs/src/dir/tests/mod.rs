//! Tests that need to see inside: crashes at every step, and what is linked without being read.

mod crash;
mod sharing;
