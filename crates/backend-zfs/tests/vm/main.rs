//! ZFS as it is: the conformance suites and the traps, on OpenZFS inside of a virtual machine.
//!
//! These tests make pools on files, so they only run inside of the machine: `cargo xtask vm`.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]
#![allow(
    clippy::print_stdout,
    reason = "what a test drew and measured is shown when it fails"
)]

mod bench;
mod bench_measure;
mod bench_replicate;
mod bench_snapshots;
mod chain;
mod delegated_lab;
mod lab;
#[cfg(feature = "libzetta")]
mod lzc_bench;
mod pulled_lab;
mod replica_lab;
mod smoke;
mod source_lab;
mod ssh_lab;
#[path = "asides.rs"]
mod vm_asides;
#[path = "beneath.rs"]
mod vm_beneath;
#[path = "blocks.rs"]
mod vm_blocks;
#[path = "brake.rs"]
mod vm_brake;
#[path = "cost.rs"]
mod vm_cost;
#[path = "crash.rs"]
mod vm_crash;
#[path = "delegation.rs"]
mod vm_delegation;
#[path = "encrypted.rs"]
mod vm_encrypted;
#[path = "failing.rs"]
mod vm_failing;
#[path = "follow.rs"]
mod vm_follow;
#[path = "fresh.rs"]
mod vm_fresh;
#[path = "keep.rs"]
mod vm_keep;
#[path = "killed.rs"]
mod vm_killed;
#[path = "legacy.rs"]
mod vm_legacy;
#[cfg(feature = "libzetta")]
#[path = "lzc.rs"]
mod vm_lzc;
#[path = "odd.rs"]
mod vm_odd;
#[path = "origin.rs"]
mod vm_origin;
#[path = "places.rs"]
mod vm_places;
#[path = "prune.rs"]
mod vm_prune;
#[path = "space.rs"]
mod vm_space;
#[path = "ssh.rs"]
mod vm_ssh;
#[path = "ssh_files.rs"]
mod vm_ssh_files;
#[path = "ssh_restore.rs"]
mod vm_ssh_restore;
#[path = "survive_chain.rs"]
mod vm_survive_chain;
#[path = "survive_many.rs"]
mod vm_survive_many;
#[path = "survive_odd.rs"]
mod vm_survive_odd;
#[path = "survive_pool.rs"]
mod vm_survive_pool;
#[path = "syncoid.rs"]
mod vm_syncoid;
#[path = "traps.rs"]
mod vm_traps;

mod vm_store {
    reseed_testkit::conformance_store!(crate::lab::Pool::new());
}

mod vm_local {
    reseed_testkit::conformance_source!(crate::source_lab::Source::local());
}

mod vm_replica {
    reseed_testkit::conformance_source!(crate::source_lab::Source::replica());
}

mod vm_replicator {
    reseed_testkit::conformance_replicate!(crate::replica_lab::Replica::new());
}

/// The same from another host to this one.
mod vm_pulled {
    reseed_testkit::conformance_replicate!(crate::pulled_lab::Pulled::new());
}

/// The same by a user without privileges at both ends.
mod vm_delegated {
    reseed_testkit::conformance_replicate!(crate::delegated_lab::Delegated::new().await);
}

#[cfg(feature = "libzetta")]
mod vm_lzc_store {
    reseed_testkit::conformance_store!(crate::lab::Pool::in_process());
}
