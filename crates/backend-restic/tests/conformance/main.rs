//! Both engines under the core's contracts: on real directories, and the embedded one also in a bucket of an S3 server in this
//! process, with its restore worker as a real process; the restic program in the versions that the environment names.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

#[path = "../common/forge.rs"]
mod forge;
mod lab;
#[path = "../common/place.rs"]
mod place;

use lab::{By, OnDisk};

mod offsite {
    reseed_testkit::conformance_offsite!(crate::OnDisk::offsite(crate::By::Embedded));
}

mod source {
    reseed_testkit::conformance_source!(crate::OnDisk::source(crate::By::Embedded));
}

mod real_restic {
    const BY: crate::By = crate::By::Program("RESEED_REAL_RESTIC");

    mod offsite {
        reseed_testkit::conformance_offsite!(crate::OnDisk::offsite(super::BY));
    }

    mod source {
        reseed_testkit::conformance_source!(crate::OnDisk::source(super::BY));
    }
}

mod real_newer_restic {
    const BY: crate::By = crate::By::Program("RESEED_REAL_RESTIC_NEWER");

    mod offsite {
        reseed_testkit::conformance_offsite!(crate::OnDisk::offsite(super::BY));
    }

    mod source {
        reseed_testkit::conformance_source!(crate::OnDisk::source(super::BY));
    }
}

mod offsite_s3 {
    reseed_testkit::conformance_offsite!(crate::OnDisk::offsite_in_s3(crate::By::Embedded));
}

mod source_s3 {
    reseed_testkit::conformance_source!(crate::OnDisk::source_in_s3(crate::By::Embedded));
}
