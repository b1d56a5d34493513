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

fn locks_of(locker: &Locker) -> Vec<(String, LockFile)> {
    locker.list().unwrap().0
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
    let listed = locks_of(&locker);
    assert_eq!(listed.len(), 1);
    assert!(!listed[0].1.exclusive);
    assert_eq!(listed[0].1.pid, i32::try_from(std::process::id()).unwrap());
    // Others may share it.
    let second = locker.take(LockMode::Required, &Gate::default()).unwrap();
    assert_eq!(locks_of(&locker).len(), 2);
    drop((lock, second));
    assert_eq!(locks_of(&locker), vec![]);
}

#[test]
fn a_lock_is_gone_after_a_panic_too() {
    let (_dir, locker) = locker();
    let result = crate::error::guarded("a test", || {
        let _lock = locker.take(LockMode::Required, &Gate::default())?;
        assert_eq!(locker.list()?.0.len(), 1);
        panic!("in the middle");
        #[allow(unreachable_code)]
        Ok(())
    });
    assert!(matches!(result, Err(EngineError::Panicked { .. })));
    assert_eq!(locks_of(&locker), vec![]);
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
    assert_eq!(locks_of(&locker), vec![]);
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
fn an_old_lock_of_another_host_is_left_alone_and_keeps_writers_out_when_it_is_exclusive() {
    for exclusive in [false, true] {
        let (_dir, locker) = locker();
        put(&locker, &theirs(&locker, exclusive, "there", 31), false);
        let writing = locker.take(LockMode::Required, &Gate::default());
        let refused = matches!(writing, Err(EngineError::Locked { .. }));
        assert_eq!(refused, exclusive, "{writing:?}");
        drop(writing);
        drop(locker.take(LockMode::IfWritable, &Gate::default()).unwrap());
        assert_eq!(
            locks_of(&locker).len(),
            1,
            "only its own host can know that it is dead"
        );
    }
}

#[test]
fn the_lock_of_a_dead_process_here_is_removed() {
    let (_dir, locker) = locker();
    for (exclusive, minutes_old) in [(false, 7), (true, 7)] {
        let dead = LockFile {
            pid: NOBODY,
            ..theirs(&locker, exclusive, "here", minutes_old)
        };
        put(&locker, &dead, false);
    }
    let elsewhere = LockFile {
        pid: NOBODY,
        ..theirs(&locker, false, "there", 1)
    };
    let kept = put(&locker, &elsewhere, false);
    let held = locker.take(LockMode::Required, &Gate::default()).unwrap();
    drop(held);
    let left: Vec<_> = locks_of(&locker).into_iter().map(|(id, _)| id).collect();
    assert_eq!(left, vec![kept], "a pid means nothing on another host");
}

/// Containers have names and process ids of their own, and often the same.
#[test]
fn a_lock_that_looks_dead_is_not_removed_before_it_would_have_been_refreshed() {
    for exclusive in [false, true] {
        let (_dir, locker) = locker();
        let namesake = LockFile {
            pid: NOBODY,
            ..theirs(&locker, exclusive, "here", 5)
        };
        let kept = put(&locker, &namesake, false);
        let writing = locker.take(LockMode::Required, &Gate::default());
        let refused = matches!(writing, Err(EngineError::Locked { .. }));
        assert_eq!(refused, exclusive, "{writing:?}");
        drop(writing);
        drop(locker.take(LockMode::IfWritable, &Gate::default()).unwrap());
        let alone = locker.start(true, LockMode::Required);
        assert!(matches!(alone, Err(EngineError::Locked { .. })), "{alone:?}");
        assert_eq!(locks_of(&locker), vec![(kept, namesake)]);
    }
}

#[test]
fn a_file_that_is_no_lock_is_passed_told_and_left_alone() {
    let (dir, locker) = locker();
    let locks = dir.path().join("locks");
    std::fs::create_dir_all(&locks).unwrap();
    let sound = std::fs::read(locks.join(put(&locker, &theirs(&locker, false, "there", 1), false))).unwrap();
    let strays = [
        b"garbage".to_vec(),
        vec![7; 100_000],
        sound[..sound.len() / 2].to_vec(),
        locker.cipher.seal(b"[]").unwrap(),
        locker.cipher.seal(b"{\"time\":1}").unwrap(),
    ];
    for (number, stray) in strays.iter().enumerate() {
        std::fs::write(locks.join(format!("{number:02}").repeat(32)), stray).unwrap();
    }
    for mode in [LockMode::IfWritable, LockMode::Required] {
        let lock = locker.take(mode, &Gate::default()).unwrap().unwrap();
        assert_eq!(lock.warnings().len(), strays.len(), "{:?}", lock.warnings());
    }
    // They hide nobody.
    put(&locker, &theirs(&locker, true, "there", 1), false);
    for mode in [LockMode::IfWritable, LockMode::Required] {
        let refused = locker.take(mode, &Gate::default());
        assert!(matches!(refused, Err(EngineError::Locked { .. })));
    }
    assert_eq!(std::fs::read_dir(&locks).unwrap().count(), strays.len() + 2);
}

#[test]
fn locks_that_cannot_be_fetched_stop_writers_and_not_readers() {
    let (dir, locker) = locker();
    // A link that leads to itself fails for root too.
    std::os::unix::fs::symlink("locks", dir.path().join("locks")).unwrap();
    let required = locker.take(LockMode::Required, &Gate::default());
    let reading = locker.take(LockMode::IfWritable, &Gate::default());
    assert!(matches!(required, Err(EngineError::Store { .. })), "{required:?}");
    assert!(matches!(reading, Ok(None)), "{reading:?}");
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
fn a_hangup_does_not_end_a_lock_holder() {
    let (_dir, locker) = locker();
    let lock = locker.take(LockMode::Required, &Gate::default()).unwrap();
    let arrived = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::clone(&arrived)).unwrap();
    let this = rustix::process::getpid();
    rustix::process::kill_process(this, rustix::process::Signal::HUP).unwrap();
    // Another thread may get it, when it comes to run: not after the lock is gone.
    while !arrived.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    assert_eq!(locks_of(&locker).len(), 1);
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
