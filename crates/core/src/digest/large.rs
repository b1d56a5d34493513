//! One large file of a walk, read by all threads at once.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::content::Pieces;
use super::dir::Dir;
use super::error::Cause;
use super::sys::{Stat, read_at, stat_fd};
use super::walk::{Scratch, Task, Walk};

/// An open file too large to be read in one go.
pub(super) struct LargeFile {
    pub(super) dir: Arc<Dir>,
    pub(super) name: CString,
    pub(super) fd: OwnedFd,
    pub(super) stat: Stat,
    /// Where its content hash belongs: the place of the run in the directory, and that in the run.
    pub(super) run: usize,
    pub(super) at: usize,
    pub(super) pieces: Pieces,
}

impl Walk<'_> {
    /// Hands a large file to the threads. The directory counts it as one pending task.
    pub(super) fn start_large(&self, file: LargeFile) {
        let file = Arc::new(file);
        let hands =
            usize::try_from(file.pieces.count()).map_or(self.threads, |count| count.min(self.threads));
        self.queue.push((0..hands).map(|_| Task::Pieces {
            file: Arc::clone(&file),
        }));
    }

    pub(super) fn pieces(&self, file: &LargeFile, scratch: &mut Scratch) {
        while let Some((offset, len)) = file.pieces.take() {
            if self.is_cancelled() {
                self.queue.stop();
                return;
            }
            scratch.content.resize(scratch.content.len().max(len), 0);
            let buf = &mut scratch.content[..len];
            // After a failure the pieces are only counted, so that the directory still comes to its end.
            if !self.has_failed() {
                match read_at(file.fd.as_fd(), buf, offset) {
                    Ok(n) if n == len => self.count_read(0, len as u64),
                    Ok(_) => self.problem(&file.dir, Some(&file.name), Cause::Changed),
                    Err(err) => self.problem(&file.dir, Some(&file.name), Cause::Unreadable(err)),
                }
            }
            if let Some(hash) = file.pieces.put(offset, buf) {
                self.large_done(file, hash, scratch);
            }
        }
    }

    fn large_done(&self, file: &LargeFile, hash: [u8; 32], scratch: &mut Scratch) {
        match stat_fd(file.fd.as_fd()) {
            Ok(now) if now.same_state(&file.stat) => {
                self.count_read(1, 0);
                if file.stat.nlink > 1 && !self.has_failed() {
                    self.set_linked_content(&file.stat, hash);
                }
                file.dir.stage().contents.push((file.run, file.at, hash));
            }
            Ok(_) => self.problem(&file.dir, Some(&file.name), Cause::Changed),
            Err(err) => self.problem(&file.dir, Some(&file.name), Cause::from_io(err)),
        }
        self.own_task_done(&file.dir, scratch);
    }
}
