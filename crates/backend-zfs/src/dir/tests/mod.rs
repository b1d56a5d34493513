//! Tests that need to see inside: crashes at every step.

mod crash;
