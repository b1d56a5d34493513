//! Repositories in S3 that can't be had, or not as they should be. The server is in this process, checks keys and regions, and
//! fails by rules; or it is a real Garage, behind a proxy that fails by the same rules.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

/// Tests that get a lab with an empty bucket: in this process, and of Garage.
macro_rules! on_both {
    ($($test:ident)+) => {
        mod here {
            $(#[test]
            fn $test() {
                super::$test(crate::lab::S3Lab::bare());
            })+
        }

        mod real_garage {
            $(#[test]
            fn $test() {
                super::$test(crate::lab::S3Lab::in_garage());
            })+
        }
    };
}

mod ageing;
mod bad_input;
#[path = "../common/mod.rs"]
mod common;
mod faults;
mod init;
mod lab;
mod lifecycle;
#[path = "../common/location.rs"]
mod location;
#[path = "../common/server.rs"]
mod server;
mod ways_in;
