//! Both engines under the core's contracts, on real directories and in a bucket of an S3 server in this process: the embedded one
//! with its restore worker as a real process, and the restic program in the versions that the environment names.

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

mod offsite_s3 {
    reseed_testkit::conformance_offsite!(crate::OnDisk::offsite_in_s3(crate::By::Embedded));
}

mod source_s3 {
    reseed_testkit::conformance_source!(crate::OnDisk::source_in_s3(crate::By::Embedded));
}

/// The restic program, on both kinds of places.
macro_rules! by_program {
    ($($name:ident = $variable:literal;)+) => {$(
        mod $name {
            const BY: crate::By = crate::By::Program($variable);

            mod offsite {
                reseed_testkit::conformance_offsite!(crate::OnDisk::offsite(super::BY));
            }

            mod source {
                reseed_testkit::conformance_source!(crate::OnDisk::source(super::BY));
            }

            mod offsite_s3 {
                reseed_testkit::conformance_offsite!(crate::OnDisk::offsite_in_s3(super::BY));
            }

            mod pruner {
                reseed_testkit::conformance_pruner!(crate::OnDisk::offsite(super::BY));
            }

            mod pruner_s3 {
                reseed_testkit::conformance_pruner!(crate::OnDisk::offsite_in_s3(super::BY));
            }

            mod source_s3 {
                reseed_testkit::conformance_source!(crate::OnDisk::source_in_s3(super::BY));
            }
        }
    )+};
}

by_program! {
    real_restic = "RESEED_REAL_RESTIC";
    real_newer_restic = "RESEED_REAL_RESTIC_NEWER";
}
