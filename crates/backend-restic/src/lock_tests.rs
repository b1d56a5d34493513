use proptest::prelude::*;
use reseed_core::clock::SystemClock;
use rustic_core::repofile::MasterKey;

use super::*;

fn locker() -> (tempfile::TempDir, Locker) {
    let dir = tempfile::tempdir().unwrap();
    let locker = Locker {
        store: Arc::new(Store::local(dir.path()).unwrap()),
        cipher: Cipher::new(MasterKey::new()).unwrap(),
        clock: Arc::new(SystemClock::new()),
        host: "here".into(),
    };
    (dir, locker)
}

fn put(locker: &Locker, lock: &LockFile, compressed: bool) -> String {
    let mut plain = serde_json::to_vec(lock).unwrap();
    if compressed {
        plain = [vec![2], zstd::bulk::compress(&plain, 1).unwrap()].concat();
    }
    let sealed = locker.cipher.seal(&plain).unwrap();
    let id = hex(&digest(&sealed));
    locker
        .store
        .write(
            &layout::lock_path(locker.store.prefix(), &id),
            vec![sealed.into()],
        )
        .unwrap();
    id
}

fn theirs(locker: &Locker, exclusive: bool, host: &str, minutes_old: i64) -> LockFile {
    LockFile {
        time: locker.clock.now() - SignedDuration::from_mins(minutes_old),
        exclusive,
        hostname: host.into(),
        username: "root".into(),
        pid: i32::try_from(std::process::id()).unwrap(),
        uid: 0,
        gid: 0,
    }
}

/// A pid above what Linux hands out (2^22), so nobody has it.
const NOBODY: i32 = 0x3fff_ffff;

#[test]
fn a_lock_is_there_while_held_and_gone_afterwards() {
    let (_dir, locker) = locker();
    let lock = locker
        .take(LockMode::Required, &Gate::default())
        .unwrap()
        .unwrap();
    let listed = locker.list().unwrap();
    assert_eq!(listed.len(), 1);
    assert!(!listed[0].1.exclusive);
    assert_eq!(listed[0].1.pid, i32::try_from(std::process::id()).unwrap());
    // Others may share it.
    let second = locker.take(LockMode::Required, &Gate::default()).unwrap();
    assert_eq!(locker.list().unwrap().len(), 2);
    drop((lock, second));
    assert_eq!(locker.list().unwrap(), vec![]);
}

#[test]
fn a_lock_is_gone_after_a_panic_too() {
    let (_dir, locker) = locker();
    let result = crate::error::guarded("a test", || {
        let _lock = locker.take(LockMode::Required, &Gate::default())?;
        assert_eq!(locker.list()?.len(), 1);
        panic!("in the middle");
        #[allow(unreachable_code)]
        Ok(())
    });
    assert!(matches!(result, Err(EngineError::Panicked { .. })));
    assert_eq!(locker.list().unwrap(), vec![]);
}

#[test]
fn their_exclusive_lock_keeps_us_out_and_names_its_holder() {
    let (_dir, locker) = locker();
    for compressed in [false, true] {
        let lock = theirs(&locker, true, "there", 29);
        let id = put(&locker, &lock, compressed);
        let error = locker.take(LockMode::IfWritable, &Gate::default()).unwrap_err();
        let EngineError::Locked { holder } = error else {
            panic!("{error}")
        };
        assert_eq!((holder.who.as_str(), holder.host.as_str()), ("root", "there"));
        assert_eq!((holder.pid, holder.since), (lock.pid, Some(lock.time)));
        locker.remove(&id).unwrap();
    }
    assert_eq!(locker.list().unwrap(), vec![]);
}

#[test]
fn their_shared_lock_does_not_keep_us_out() {
    let (_dir, locker) = locker();
    put(&locker, &theirs(&locker, false, "there", 1), false);
    assert!(
        locker
            .take(LockMode::Required, &Gate::default())
            .unwrap()
            .is_some()
    );
    assert!(matches!(
        locker.start(true, LockMode::Required),
        Err(EngineError::Locked { .. })
    ));
}

#[test]
fn an_old_lock_of_another_host_is_passed_and_left_alone() {
    let (_dir, locker) = locker();
    put(&locker, &theirs(&locker, true, "there", 31), false);
    drop(locker.take(LockMode::Required, &Gate::default()).unwrap());
    assert_eq!(
        locker.list().unwrap().len(),
        1,
        "only its own host can know that it is dead"
    );
}

#[test]
fn the_lock_of_a_dead_process_here_is_removed() {
    let (_dir, locker) = locker();
    let dead = LockFile {
        pid: NOBODY,
        ..theirs(&locker, true, "here", 1)
    };
    put(&locker, &dead, false);
    let elsewhere = LockFile {
        pid: NOBODY,
        ..theirs(&locker, false, "there", 1)
    };
    let kept = put(&locker, &elsewhere, false);
    let held = locker.take(LockMode::Required, &Gate::default()).unwrap();
    drop(held);
    let left: Vec<_> = locker.list().unwrap().into_iter().map(|(id, _)| id).collect();
    assert_eq!(left, vec![kept], "a pid means nothing on another host");
}

#[test]
fn a_lock_that_cannot_be_read_is_not_taken_for_none() {
    let (dir, locker) = locker();
    std::fs::create_dir_all(dir.path().join("locks")).unwrap();
    std::fs::write(
        dir.path().join("locks").join("ab".repeat(32)),
        b"not a lock at all, too short?",
    )
    .unwrap();
    assert!(matches!(
        locker.take(LockMode::Required, &Gate::default()),
        Err(EngineError::Unreadable { .. })
    ));
}

#[test]
fn an_empty_lock_file_says_nothing() {
    let (dir, locker) = locker();
    std::fs::create_dir_all(dir.path().join("locks")).unwrap();
    std::fs::write(dir.path().join("locks").join("ab".repeat(32)), b"").unwrap();
    assert!(
        locker
            .take(LockMode::Required, &Gate::default())
            .unwrap()
            .is_some()
    );
}

#[test]
fn refreshing_writes_the_new_before_removing_the_old() {
    let (_dir, locker) = locker();
    let first = locker.write(false).unwrap();
    let current = Mutex::new(vec![first.clone()]);
    refresh(&locker, &current, false).unwrap();
    let ids: Vec<_> = locker.list().unwrap().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, *current.lock().unwrap());
    assert!(!ids.contains(&first));
}

#[test]
fn a_hangup_does_not_end_a_lock_holder() {
    let (_dir, locker) = locker();
    let lock = locker.take(LockMode::Required, &Gate::default()).unwrap();
    let this = rustix::process::getpid();
    rustix::process::kill_process(this, rustix::process::Signal::HUP).unwrap();
    assert_eq!(locker.list().unwrap().len(), 1);
    drop(lock);
}

proptest! {
    #[test]
    fn staleness_follows_restics_rules(minutes in -60_i64..120, same_host: bool, alive: bool) {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(100_000);
        let lock = LockFile {
            time: now - SignedDuration::from_mins(minutes),
            exclusive: true,
            hostname: if same_host { "here" } else { "there" }.into(),
            username: String::new(),
            pid: 7,
            uid: 0,
            gid: 0,
        };
        let expected = match (same_host && !alive, minutes > 30) {
            (true, _) => LockState::Dead,
            (false, true) => LockState::Old,
            (false, false) => LockState::Live,
        };
        prop_assert_eq!(lock.state(now, "here", |_| alive), expected);
    }
}

#[test]
fn the_go_time_format_with_a_zone_is_understood() {
    let json = r#"{"time":"2026-11-22T21:33:14.123456789+01:00","exclusive":false,"hostname":"h","username":"u","pid":5}"#;
    let lock: LockFile = serde_json::from_str(json).unwrap();
    assert_eq!(lock.time.to_string(), "2026-11-22T20:33:14.123456789Z");
}
