//! The restore worker as a program of its own, for this crate's tests.

fn main() -> std::process::ExitCode {
    reseed_backend_restic::child::main()
}
