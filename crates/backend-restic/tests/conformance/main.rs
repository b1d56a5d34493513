//! The embedded engine under the core's contracts, on real directories and in a bucket of an S3 server in this process,
//! with the restore worker as a real process.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

#[path = "../common/forge.rs"]
mod forge;
mod lab;
#[path = "../common/place.rs"]
mod place;

mod offsite {
    reseed_testkit::conformance_offsite!(crate::lab::OnDisk::offsite());
}

mod source {
    reseed_testkit::conformance_source!(crate::lab::OnDisk::source());
}

mod offsite_s3 {
    reseed_testkit::conformance_offsite!(crate::lab::OnDisk::offsite_in_s3());
}

mod source_s3 {
    reseed_testkit::conformance_source!(crate::lab::OnDisk::source_in_s3());
}
