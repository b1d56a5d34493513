use std::sync::Arc;

use bytes::Bytes;
use reseed_core::clock::Clock;
use rustic_core::repofile::MasterKey;
use rustic_core::{FileType, Id, WriteBackend as _};

use super::super::LockMode;
use super::*;
use crate::cipher::Cipher;
use crate::store::{Backend, Store};

/// What both clocks say, in minutes.
#[derive(Debug, Default)]
struct Hands(Mutex<(u64, u64)>);

impl Hands {
    fn pass(&self, wall: u64, monotonic: u64) {
        let mut hands = self.0.lock().unwrap();
        hands.0 += wall;
        hands.1 += monotonic;
    }
}

#[async_trait::async_trait]
impl Clock for Hands {
    fn now(&self) -> Timestamp {
        let minutes = self.0.lock().unwrap().0;
        Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_mins(i64::try_from(minutes).unwrap())
    }
    fn monotonic(&self) -> Duration {
        Duration::from_mins(self.0.lock().unwrap().1)
    }
    async fn sleep(&self, _time: Duration) {}
}

struct Lab {
    dir: tempfile::TempDir,
    clock: Arc<Hands>,
    locker: Locker,
    gate: Gate,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Hands::default());
        let locker = Locker {
            store: Arc::new(Store::local(dir.path()).unwrap()),
            cipher: Cipher::new(MasterKey::new()).unwrap(),
            clock: clock.clone(),
            host: "here".into(),
        };
        Self {
            dir,
            clock,
            locker,
            gate: Gate::default(),
        }
    }

    fn held(&self) -> Upkeep {
        Upkeep::of(self.locker.clone(), false, self.locker.write(false).unwrap())
    }

    fn files(&self) -> Vec<String> {
        let listed = self.locker.list().unwrap().0;
        listed.into_iter().map(|(id, _)| id).collect()
    }

    /// As `restic unlock` of another host does.
    fn removed_by_another(&self) {
        for id in self.files() {
            self.locker.remove(&id).unwrap();
        }
    }

    fn writes(&self, kind: FileType) -> bool {
        let backend = Backend::new(Arc::clone(&self.locker.store), self.gate.clone());
        let content = Bytes::from_static(b"x").into();
        backend.write_bytes(kind, &Id::default(), false, content).is_ok()
    }
}

fn is_lost(result: &Result<()>) -> bool {
    matches!(result, Err(EngineError::LockLost { .. }))
}

#[test]
fn refreshing_is_due_by_either_clock_and_leaves_one_file() {
    for (wall, monotonic) in [(5, 0), (0, 5), (300, 1)] {
        let lab = Lab::new();
        let upkeep = lab.held();
        let first = lab.files();
        lab.clock.pass(wall - wall.min(1), monotonic - monotonic.min(1));
        if wall < 300 {
            upkeep.tend(&lab.gate);
            assert_eq!(lab.files(), first, "too early");
        }
        lab.clock.pass(wall.min(1), monotonic.min(1));
        upkeep.tend(&lab.gate);
        let second = lab.files();
        assert_eq!(second.len(), 1);
        assert_ne!(second, first);
        lab.gate.check().unwrap();
        upkeep.assure().unwrap();
        assert_eq!(lab.files(), second);
        upkeep.give_up();
        assert_eq!(lab.files(), Vec::<String>::new());
        assert!(is_lost(&upkeep.assure()));
    }
}

#[test]
fn a_lock_that_was_removed_while_the_machine_slept_is_lost_though_it_could_be_written_anew() {
    let lab = Lab::new();
    let upkeep = lab.held();
    lab.clock.pass(45, 0);
    lab.removed_by_another();
    upkeep.tend(&lab.gate);
    assert!(is_lost(&lab.gate.check()));
    assert!(!lab.writes(FileType::Pack));
    // Nor is it believed later, now that one of ours is there.
    assert_eq!(lab.files().len(), 1);
    assert!(is_lost(&upkeep.assure()));
    lab.clock.pass(5, 5);
    assert!(is_lost(&upkeep.assure()));
    upkeep.give_up();
    assert_eq!(lab.files(), Vec::<String>::new());
}

#[test]
fn a_machine_that_slept_and_kept_its_lock_goes_on() {
    let lab = Lab::new();
    let upkeep = lab.held();
    lab.clock.pass(45, 0);
    upkeep.tend(&lab.gate);
    lab.gate.check().unwrap();
    upkeep.assure().unwrap();
}

#[test]
fn an_index_or_a_snapshot_is_not_written_before_the_lock_was_looked_for() {
    for kind in [FileType::Index, FileType::Snapshot] {
        let lab = Lab::new();
        let lock = lab.locker.take(LockMode::Required, &lab.gate).unwrap().unwrap();
        assert!(lab.writes(FileType::Pack) && lab.writes(kind));
        // Right after waking up, before anybody has looked at the clock.
        lab.removed_by_another();
        assert!(lab.writes(FileType::Pack), "what nothing names does no harm");
        assert!(!lab.writes(kind));
        assert!(!lab.writes(FileType::Pack), "the gate is closed");
        drop(lock);
    }
}

#[test]
fn what_can_not_be_looked_for_is_no_lost_lock_until_it_may_be_one() {
    let lab = Lab::new();
    let upkeep = lab.held();
    let locks = lab.dir.path().join("locks");
    let away = lab.dir.path().join("away");
    std::fs::rename(&locks, &away).unwrap();
    // A link that leads to itself fails for root too.
    std::os::unix::fs::symlink("locks", &locks).unwrap();
    for minutes in [5, 10, 9, 1, 0] {
        lab.clock.pass(minutes, minutes);
        upkeep.tend(&lab.gate);
        let gone = minutes == 1 || minutes == 0;
        assert_eq!(is_lost(&lab.gate.check()), gone, "{minutes}");
        assert!(upkeep.assure().is_err());
    }
    // It was there all the time, which is found when it can be looked for.
    std::fs::remove_file(&locks).unwrap();
    std::fs::rename(&away, &locks).unwrap();
    upkeep.assure().unwrap();
    assert_eq!(lab.files().len(), 1);
}
