//! The plain-directory store on real files: the conformance suites, and beyond them what only real files can show.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod history;
mod lab;
mod mounts;
mod replication;
mod roots;
mod trees;

mod store {
    reseed_testkit::conformance_store!(crate::lab::OnDisk::new());
}

mod local {
    reseed_testkit::conformance_source!(crate::lab::Source::local());
}

mod replica {
    reseed_testkit::conformance_source!(crate::lab::Source::replica());
}

mod replicator {
    reseed_testkit::conformance_replicate!(crate::lab::Replica::new());
}
