//! Both engines under the core's contracts, on real directories: the embedded one with its restore worker as a real process,
//! and the restic program in the versions that the environment names.

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
