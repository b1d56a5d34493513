//! The index: an unchanged file is linked without being read, and nothing else is.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use reseed_core::clock::SystemClock;
use reseed_core::names::DatasetName;
use reseed_testkit::conformance::context;

use super::super::index::{Index, encode};
use super::super::job::Jobs;
use super::super::sys::{self, FileTime};
use super::super::tree::{self, Copying, Outcome, Reuse, Vouch};

fn copy(from: &Path, to: &Path, before: Option<(&Path, &Index)>) -> Outcome {
    fs::create_dir(to).unwrap();
    let job = Jobs::new(Arc::new(SystemClock::new())).job(context("copy"));
    let before = before.map(|(root, index)| (sys::open_dir_path(root).unwrap(), index));
    let copying = Copying {
        job: &job,
        dataset: &DatasetName::new("plain/a").unwrap(),
        total: None,
        live: true,
        resume: false,
        only: Vec::new(),
        reuse: before.as_ref().map(|(root, index)| Reuse {
            root,
            vouch: Vouch::Index(index),
        }),
    };
    let open = |path| sys::open_dir_path(path).unwrap();
    tree::copy(&copying, open(from), open(to)).unwrap()
}

#[test]
fn an_index_spares_reading_and_only_for_what_it_saw() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("live")).unwrap();
    for name in ["kept", "touched"] {
        fs::write(at("live").join(name), "content").unwrap();
    }
    let first = copy(&at("live"), &at("one"), None);
    // As if all had been written long before.
    let later = FileTime {
        secs: i64::MAX,
        nanos: 0,
    };
    let index = Index::parse(&encode(&first.seen, later));
    // The copies lose their content behind their backs, so that it shows who reads them.
    for name in ["kept", "touched"] {
        let copy = at("one").join(name);
        let time = fs::metadata(&copy).unwrap().modified().unwrap();
        fs::write(&copy, "CONTENT").unwrap();
        fs::File::options()
            .write(true)
            .open(&copy)
            .unwrap()
            .set_modified(time)
            .unwrap();
    }
    // A changed ctime, and nothing else: the index saw another state of it.
    fs::hard_link(at("live").join("touched"), at("other")).unwrap();
    fs::remove_file(at("other")).unwrap();
    copy(&at("live"), &at("two"), Some((&at("one"), &index)));
    let ino = |tree: &str, name: &str| fs::metadata(at(tree).join(name)).unwrap().ino();
    assert_eq!(ino("two", "kept"), ino("one", "kept"), "it was read, or copied");
    assert_ne!(
        ino("two", "touched"),
        ino("one", "touched"),
        "it was linked unread"
    );
    assert_eq!(fs::read(at("two").join("touched")).unwrap(), b"content");
    // Without an index, equal size and time are not believed.
    copy(&at("live"), &at("three"), Some((&at("one"), &Index::default())));
    assert_ne!(ino("three", "kept"), ino("one", "kept"));
    assert_eq!(fs::read(at("three").join("kept")).unwrap(), b"content");
}

/// A read that fails sends the chain to another source; a write that fails ends it. The kind alone can't tell them apart.
#[test]
fn a_copy_says_on_which_side_it_failed() {
    use super::super::fault::Side;
    use super::super::source::failed;
    use reseed_core::error::SourceKind;

    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let job = Jobs::new(Arc::new(SystemClock::new())).job(context("copy"));
    let attempt = |src, dst| {
        let copying = Copying {
            job: &job,
            dataset: &DatasetName::new("plain/a").unwrap(),
            total: None,
            live: false,
            resume: true,
            only: Vec::new(),
            reuse: None,
        };
        tree::copy(&copying, src, dst).unwrap_err()
    };
    for name in ["from", "to", "gone"] {
        fs::create_dir(at(name)).unwrap();
    }
    fs::write(at("from").join("file"), "content").unwrap();
    let open = |name: &str| sys::open_dir_path(&at(name)).unwrap();

    // Nothing can be made in a directory that was removed.
    let gone = open("gone");
    fs::remove_dir(at("gone")).unwrap();
    let fault = attempt(open("from"), gone);
    assert_eq!(fault.side, Side::To, "{fault:?}");
    assert_eq!(failed(fault).kind(), SourceKind::Target);

    // A descriptor that can't be read from: the listing fails.
    let blind = rustix::fs::openat(
        rustix::fs::CWD,
        at("from"),
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    let fault = attempt(blind, open("to"));
    assert_eq!(fault.side, Side::From, "{fault:?}");
    assert_ne!(failed(fault).kind(), SourceKind::Target);
}
