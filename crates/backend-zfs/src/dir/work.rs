//! What the threads of a copy share to divide the work: the queue, and the names that are one file.
//!
//! Newest work first keeps the walk depth-first, and with it few directories open. Promises that every thread comes out
//! of [`Queue::pop`] and [`Links::role`] when all is done, when one fails, and when one dies.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use reseed_core::error::Common;

use super::fault::{Copied, Fault, Side};
use super::sys::Fail;
use super::tree::{Place, Task};

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names that share one inode within the source. The first that comes makes the copy, the others link to it.
#[derive(Debug, Default)]
pub(super) struct Links {
    groups: Mutex<Groups>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Groups {
    made: HashMap<u64, Option<(Arc<Place>, CString)>>,
    stopped: bool,
}

/// What to do with a name whose inode has others.
pub(super) enum Role {
    /// Make the copy, then say [`Links::made`].
    First,
    /// Link to this.
    Another(Arc<Place>, CString),
}

impl Links {
    /// Asks for the role of one name of an inode, waiting while another thread makes the copy.
    pub(super) fn role(&self, ino: u64) -> Copied<Role> {
        let mut groups = lock(&self.groups);
        loop {
            if groups.stopped {
                return Err(Fault {
                    side: Side::Neither,
                    fail: Fail::new(Common::Cancelled, "the copy was stopped"),
                });
            }
            match groups.made.get(&ino) {
                None => {
                    groups.made.insert(ino, None);
                    return Ok(Role::First);
                }
                Some(Some((place, name))) => return Ok(Role::Another(Arc::clone(place), name.clone())),
                Some(None) => groups = self.changed.wait(groups).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// The copy is there; or it isn't, and the next name is first.
    pub(super) fn made(&self, ino: u64, at: Option<(Arc<Place>, CString)>) {
        let mut groups = lock(&self.groups);
        match at {
            Some(at) => groups.made.insert(ino, Some(at)),
            None => groups.made.remove(&ino),
        };
        drop(groups);
        self.changed.notify_all();
    }

    pub(super) fn stop(&self) {
        lock(&self.groups).stopped = true;
        self.changed.notify_all();
    }
}

/// What is still to do, newest first. [`done`](Self::done) follows each [`pop`](Self::pop).
#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    tasks: Vec<Task>,
    /// Queued or being worked on.
    open: usize,
    stopped: bool,
    failure: Option<Fault>,
}

impl Queue {
    pub(super) fn push(&self, tasks: impl IntoIterator<Item = Task>) {
        let mut inner = lock(&self.inner);
        let before = inner.tasks.len();
        inner.tasks.extend(tasks);
        inner.open += inner.tasks.len() - before;
        drop(inner);
        self.changed.notify_all();
    }

    pub(super) fn pop(&self) -> Option<Task> {
        let mut inner = lock(&self.inner);
        loop {
            if inner.stopped || inner.open == 0 {
                return None;
            }
            if let Some(task) = inner.tasks.pop() {
                return Some(task);
            }
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn done(&self) {
        let mut inner = lock(&self.inner);
        inner.open = inner.open.saturating_sub(1);
        if inner.open == 0 {
            drop(inner);
            self.changed.notify_all();
        }
    }

    /// Keeps the first failure and stops everybody.
    pub(super) fn fail(&self, fault: Fault) {
        lock(&self.inner).failure.get_or_insert(fault);
        self.stop();
    }

    pub(super) fn stop(&self) {
        lock(&self.inner).stopped = true;
        self.changed.notify_all();
    }

    pub(super) fn failure(&self) -> Option<Fault> {
        lock(&self.inner).failure.take()
    }
}
