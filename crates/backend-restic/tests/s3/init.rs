//! Making a repository: one, also where answers get lost and where a store knows no conditions.

use std::time::Duration;

use reseed_testkit::s3::{S3Fault, S3Op, S3Rule};

use crate::lab::*;

#[test]
fn init_makes_one_repository_also_where_answers_get_lost() {
    let it = S3Lab::bare();
    let lost = it
        .faults()
        .add(S3Rule::on(S3Op::Put, S3Fault::LostAnswer).key("config").times(1));
    let (id, version) = it.lab.engine.init(&it.lab.password).unwrap();
    assert_eq!(it.faults().take_struck().len(), 1);
    drop(lost);
    let open = it.lab.engine.open(&it.lab.password).unwrap();
    assert_eq!((open.id(), open.version()), (id, version));
    let before = it.objects().len();
    let again = it.lab.engine.init(&it.lab.password).unwrap_err();
    assert_eq!(kind(&again), "already_exists");
    assert_eq!(it.objects().len(), before);
    let keys = it
        .objects()
        .into_iter()
        .filter(|path| path.parent().unwrap().ends_with("keys"));
    assert_eq!(keys.count(), 1);
}

/// Garage overwrites what it was asked only to create; some stores answer that they don't know how.
#[test]
fn init_works_on_stores_that_ignore_conditions() {
    for habit in [
        S3Rule::always(S3Fault::Unconditional),
        S3Rule::on(
            S3Op::Put,
            S3Fault::Error {
                status: 501,
                code: "NotImplemented",
                message: "A header you provided implies functionality that is not implemented",
            },
        )
        .key("keys/")
        .from_nth(2)
        .times(1),
    ] {
        let it = S3Lab::bare();
        let _habit = it.faults().add(habit);
        it.lab.engine.init(&it.lab.password).unwrap();
        it.lab.engine.open(&it.lab.password).unwrap();
    }
}

/// Somebody else's configuration that appears in the middle is not overwritten.
#[test]
fn of_two_that_init_at_once_one_is_told() {
    let it = S3Lab::bare();
    let _slow = it
        .faults()
        .add(S3Rule::on(S3Op::Put, S3Fault::Slow(Duration::from_millis(300))).key("config"));
    let init = || it.engine(|_| {}).init(&it.lab.password);
    let results = std::thread::scope(|scope| {
        let both = [scope.spawn(init), scope.spawn(init)];
        both.map(|thread| thread.join().unwrap())
    });
    let made = results.iter().filter(|result| result.is_ok()).count();
    // Both may find the other's key, and then both say so.
    assert!(made <= 1, "{results:?}");
    for error in results.into_iter().filter_map(Result::err) {
        assert_eq!(kind(&error), "already_exists", "{error}");
    }
}
