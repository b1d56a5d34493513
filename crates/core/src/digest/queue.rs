//! The work a walk has still to do, newest first, shared by its threads.
//!
//! Newest first keeps a walk depth-first, and with it few directories half done. Promises that every thread comes out of
//! [`pop`](Queue::pop) when all work is done, when somebody stops it, and when another thread panics.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(super) struct Queue<T> {
    inner: Mutex<Inner<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Inner<T> {
    tasks: Vec<T>,
    /// Queued or being worked on.
    open: usize,
    stopped: bool,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                tasks: Vec::new(),
                open: 0,
                stopped: false,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds tasks; the last one is taken first.
    pub(super) fn push(&self, tasks: impl IntoIterator<Item = T>) {
        self.add(tasks, 0);
    }

    /// As [`push`](Self::push), by a thread that comes to [`pop`](Self::pop) next: nobody is woken for the one it will take.
    pub(super) fn push_and_return(&self, tasks: impl IntoIterator<Item = T>) {
        self.add(tasks, 1);
    }

    fn add(&self, tasks: impl IntoIterator<Item = T>, own: usize) {
        let mut inner = self.lock();
        let before = inner.tasks.len();
        inner.tasks.extend(tasks);
        let added = inner.tasks.len() - before;
        inner.open += added;
        drop(inner);
        match added.saturating_sub(own) {
            0 => {}
            1 => self.changed.notify_one(),
            _ => self.changed.notify_all(),
        }
    }

    /// The next task, waiting for one while others may still add some. [`done`](Self::done) must follow each.
    pub(super) fn pop(&self) -> Option<T> {
        let mut inner = self.lock();
        loop {
            if inner.stopped {
                return None;
            }
            if let Some(task) = inner.tasks.pop() {
                return Some(task);
            }
            if inner.open == 0 {
                return None;
            }
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A popped task has been worked on.
    pub(super) fn done(&self) {
        let mut inner = self.lock();
        inner.open -= 1;
        if inner.open == 0 {
            self.changed.notify_all();
        }
    }

    /// No more tasks are given out.
    pub(super) fn stop(&self) {
        let mut inner = self.lock();
        inner.stopped = true;
        // Dropped outside of the lock.
        let tasks = std::mem::take(&mut inner.tasks);
        drop(inner);
        drop(tasks);
        self.changed.notify_all();
    }
}

/// Stops the queue if its thread panics, so that the others end and the panic is passed on.
pub(super) struct StopOnPanic<'a, T>(pub(super) &'a Queue<T>);

impl<T> Drop for StopOnPanic<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}
