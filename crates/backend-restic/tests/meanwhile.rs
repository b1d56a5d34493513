//! A check by the embedded engine of a repository that another removes files from.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Once};

use common::*;
use reseed_backend_restic::check::{Findings, ReadData};
use reseed_backend_restic::error::EngineError;

fn lab() -> Lab {
    let lab = Lab::new();
    make_tree(&lab.path("tree"));
    lab.backup(&lab.path("tree"));
    lab
}

/// Checks all of it; `meanwhile` is done whenever a pack is about to be read.
fn check(lab: &Lab, meanwhile: impl Fn() + Send + Sync + 'static) -> Result<Findings, EngineError> {
    let hook = move || {
        meanwhile();
        false
    };
    let hook: Arc<dyn Fn() -> bool + Send + Sync> = Arc::new(hook);
    lab.engine.check(&lab.password, ReadData::All, &hook)
}

fn removed(files: &[PathBuf]) {
    for file in files {
        fs::remove_file(file).unwrap();
    }
}

#[test]
fn what_another_removed_is_not_missing_from_what_there_is() {
    let lab = lab();
    let all = ["index", "snapshots", "data"]
        .map(|name| lab.files_in(name))
        .concat();
    let once = Once::new();
    let found = check(&lab, move || once.call_once(|| removed(&all))).unwrap();
    assert_eq!(found.errors, Vec::<String>::new());
    assert_eq!(found.packs_read, 0, "it looked again");
}

#[test]
fn what_is_missing_and_nobody_removed_is_damage() {
    let lab = lab();
    let packs = lab.packs();
    let once = Once::new();
    let found = check(&lab, move || once.call_once(|| removed(&packs[..1]))).unwrap();
    assert!(!found.errors.is_empty());
}

/// As long as something goes each time, nothing is known.
#[test]
fn what_never_comes_to_rest_is_tried_later() {
    let lab = lab();
    let snapshots = lab.path("repo/snapshots");
    let odd = |number: usize| snapshots.join(format!("{number:064}"));
    for number in 0..500 {
        fs::write(odd(number), "this is no snapshot").unwrap();
    }
    let odd: Vec<PathBuf> = (0..500).map(odd).collect();
    let left = std::sync::Mutex::new(odd);
    let next = move || removed(left.lock().unwrap().pop().as_slice());
    let error = check(&lab, next).unwrap_err();
    assert!(matches!(error, EngineError::Busy { .. }), "{error}");
}

/// Nobody changes a pack.
#[test]
fn what_is_wrong_is_told_also_where_others_remove_something_each_time() {
    let lab = lab();
    let (wrong, snapshots) = (lab.packs().remove(0), lab.path("repo/snapshots"));
    flip_bit(&wrong, 0.5);
    let odd: Vec<PathBuf> = (0..500)
        .map(|number| snapshots.join(format!("{number:064}")))
        .collect();
    for path in &odd {
        fs::write(path, "this is no snapshot").unwrap();
    }
    let left = std::sync::Mutex::new(odd);
    let found = check(&lab, move || removed(left.lock().unwrap().pop().as_slice())).unwrap();
    let name = wrong.file_name().unwrap().to_str().unwrap();
    assert!(
        found.errors.len() == 1 && found.errors[0].contains(name),
        "{:?}",
        found.errors
    );
    assert_eq!(
        (found.affected, found.warnings.len()),
        (None, 1),
        "{:?}",
        found.warnings
    );
}
