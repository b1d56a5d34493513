//! For tests that run inside: where they are, and telling the host something.

use std::io::Write;

/// What the command line of our machines' kernel has, and no other machine's.
pub const MARK_OF_OURS: &str = "reseed.vm=1";

/// What the host has as [`Machine::share`](super::Machine::share), writable on both sides.
pub const SHARE: &str = "/run/reseed/share";

/// The serial line to the host.
const LINE: &str = "/dev/ttyS1";

/// Whether this is the inside of one of our machines.
pub fn inside() -> bool {
    let kernel = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    std::env::var_os("RESEED_VM").is_some_and(|value| value == "1")
        && kernel.split_whitespace().any(|word| word == MARK_OF_OURS)
}

/// The first line of every test that runs inside: elsewhere it fails.
///
/// # Panics
/// Outside of a virtual machine, with a sentence that says how to run the test.
pub fn require() {
    assert!(
        inside(),
        "this test runs in a virtual machine only: run it by `cargo xtask vm`"
    );
}

/// Tells the host that this point has been reached; [`Machine::wait_for_mark`](super::Machine::wait_for_mark) waits for it.
/// From a shell it is `echo "mark NAME" > /dev/ttyS1`.
pub fn mark(name: &str) -> std::io::Result<()> {
    let mut line = std::fs::OpenOptions::new().write(true).open(LINE)?;
    line.write_all(format!("mark {name}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    #[test]
    #[should_panic(expected = "run it by `cargo xtask vm`")]
    fn outside_of_a_machine_a_test_that_needs_one_fails() {
        super::require();
    }
}
