//! Moves file content from packs into the target with a few threads and little memory.
//!
//! Each thread reads a few megabytes of one pack at a time, opens the blobs in them where they lie, proves each
//! against its id and writes it to every place where it belongs. Nothing unproven is ever written. Memory is bounded
//! by the number of threads times the larger of a read and a blob, however large packs and files are.
//!
//! A file gets its metadata when its last piece was written, while it is still open. Runs of zeros become holes in
//! files that are new.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Fault;
use super::holes::{HOLE, write_around_holes};
use super::meta;
use super::plan::{Piece, Plan};
use super::prepare::Standing;
use super::reads::{Job, jobs};
use super::report::Notes;
use super::target::{LastDir, Target, create_in};
use crate::backup::Cancelled;
use crate::cipher::Cipher;
use crate::error::{EngineError, Result};
use crate::pack::{Unsealer, read_range};
use crate::progress::Meter;
use crate::store::Store;
use crate::threads;

/// Files kept open because pieces of them are still missing.
const OPEN_FILES: usize = 256;
/// How many of the files that a damaged pack affects are named.
const NAMED: usize = 20;

/// Everything that the threads share.
pub(crate) struct Writing<'a> {
    pub(crate) store: &'a Store,
    pub(crate) cipher: &'a Cipher,
    pub(crate) target: &'a Target,
    pub(crate) plan: &'a Plan,
    pub(crate) standing: &'a Standing,
    pub(crate) root: bool,
    pub(crate) meter: &'a Meter,
    pub(crate) notes: &'a Notes,
    pub(crate) cancelled: &'a Cancelled,
    pub(crate) fault: Option<&'a Fault>,
}

struct Slot {
    missing: AtomicU32,
    open: Mutex<OpenFile>,
}

#[derive(Default)]
struct OpenFile {
    file: Option<Arc<File>>,
    made: bool,
}

struct Shared {
    /// Pieces that are missing, by their place in the packs.
    pieces: Vec<Piece>,
    jobs: Vec<Job<u32>>,
    /// Files without missing pieces that aren't finished.
    settled: Vec<u32>,
    slots: Vec<Slot>,
    next_job: AtomicUsize,
    next_settled: AtomicUsize,
    open_files: AtomicUsize,
    stop: AtomicBool,
}

impl Writing<'_> {
    /// Writes all content, and the metadata of all files.
    pub(crate) fn run(&self, workers: usize) -> Result<()> {
        let shared = self.share();
        for (file, _) in self
            .plan
            .files
            .iter()
            .zip(&self.standing.finished)
            .filter(|(_, finished)| **finished)
        {
            self.meter.add(file.size, 1);
        }
        // Files without a missing piece count once they are finished.
        let is_missing = |file: u32| shared.slots[file as usize].missing.load(Ordering::Relaxed) > 0;
        let stands = self.plan.pieces.iter().zip(&self.standing.pieces);
        let stands = stands.filter(|(piece, stands)| **stands && is_missing(piece.file));
        self.meter
            .add(stands.map(|(piece, _)| u64::from(piece.plain_len)).sum(), 0);
        threads::each(workers, "restore", || {
            let result = self.work(&shared);
            if result.is_err() {
                shared.stop.store(true, Ordering::Relaxed);
            }
            result
        })?;
        Ok(())
    }

    fn share(&self) -> Shared {
        let mut pieces: Vec<Piece> = self
            .plan
            .pieces
            .iter()
            .zip(&self.standing.pieces)
            .filter(|(_, stands)| !**stands)
            .map(|(piece, _)| *piece)
            .collect();
        let slots: Vec<Slot> = self
            .standing
            .files
            .iter()
            .map(|stands| Slot {
                missing: AtomicU32::new(0),
                open: Mutex::new(OpenFile {
                    file: None,
                    made: *stands,
                }),
            })
            .collect();
        for piece in &pieces {
            slots[piece.file as usize].missing.fetch_add(1, Ordering::Relaxed);
        }
        let settled = (0..)
            .zip(slots.iter().zip(&self.standing.finished))
            .filter(|(_, (slot, finished))| slot.missing.load(Ordering::Relaxed) == 0 && !**finished)
            .map(|(number, _)| number)
            .collect();
        pieces.sort_unstable_by_key(|piece| (piece.pack, piece.at.offset, piece.file, piece.file_offset));
        let jobs = jobs(pieces.iter().map(Piece::place));
        Shared {
            pieces,
            jobs,
            settled,
            slots,
            next_job: AtomicUsize::new(0),
            next_settled: AtomicUsize::new(0),
            open_files: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        }
    }

    fn work(&self, shared: &Shared) -> Result<()> {
        let mut unsealer = Unsealer::new(self.cipher.clone())?;
        let mut dirs = LastDir::default();
        while let Some(job) = shared.jobs.get(shared.next_job.fetch_add(1, Ordering::Relaxed)) {
            if self.must_end(shared)? {
                return Ok(());
            }
            self.run_job(shared, job, &mut unsealer, &mut dirs)?;
        }
        while let Some(file) = shared
            .settled
            .get(shared.next_settled.fetch_add(1, Ordering::Relaxed))
        {
            if self.must_end(shared)? {
                return Ok(());
            }
            self.settle(*file, &mut dirs)?;
        }
        Ok(())
    }

    /// Another thread's failure ends this one without an error of its own, which would hide the other's.
    fn must_end(&self, shared: &Shared) -> Result<bool> {
        if (self.cancelled)() {
            Err(EngineError::Cancelled)
        } else {
            Ok(shared.stop.load(Ordering::Relaxed))
        }
    }

    fn run_job(
        &self,
        shared: &Shared,
        job: &Job<u32>,
        unsealer: &mut Unsealer,
        dirs: &mut LastDir,
    ) -> Result<()> {
        let pack = self.plan.packs[job.pack as usize];
        let damaged = |detail: String| {
            let (files, more) = self.affected(shared, job.pack);
            EngineError::CorruptPack {
                pack: pack.to_hex().to_string(),
                detail,
                files,
                more,
            }
        };
        let mut buffer =
            read_range(self.store, &pack, job.offset, job.length).map_err(|error| match error {
                EngineError::CorruptPack { detail, .. } => damaged(detail),
                other => other,
            })?;
        let mut rest = &shared.pieces[job.pieces.clone()];
        while let Some(piece) = rest.first() {
            // The same blob, wanted in several places, is opened once: opening destroys what was sealed.
            let same = rest
                .iter()
                .take_while(|other| other.at.offset == piece.at.offset)
                .count();
            let (now, later) = rest.split_at(same);
            rest = later;
            let from = (piece.at.offset - job.offset) as usize;
            let sealed = buffer
                .get_mut(from..from + piece.at.length as usize)
                .ok_or_else(|| damaged("its index does not fit it".into()))?;
            let plain = unsealer.open(sealed, piece.at, &piece.id).map_err(&damaged)?;
            for wanted in now {
                if wanted.id != piece.id || wanted.at != piece.at {
                    return Err(damaged("its index names two blobs in one place".into()));
                }
                self.write_piece(shared, wanted, plain, dirs)?;
            }
        }
        Ok(())
    }

    fn write_piece(&self, shared: &Shared, piece: &Piece, plain: &[u8], dirs: &mut LastDir) -> Result<()> {
        let number = piece.file as usize;
        let (file, slot) = (&self.plan.files[number], &shared.slots[number]);
        let path = self.plan.file_path(piece.file);
        let fail = |action: &str, error: io::Error| EngineError::target(action, &path, &error);
        if file.pieces.len() == 1 && !self.standing.files[number] {
            // The common small file: made, filled and finished in one go.
            let open = self
                .create(piece.file, dirs)
                .map_err(|error| fail("create", error))?;
            self.put(&open, &path, plain, 0, true)?;
            self.finish(&open, piece.file, &path, false)?;
            self.meter.add(plain.len() as u64, 1);
            return Ok(());
        }
        let open = {
            let mut open = slot.open.lock().unwrap_or_else(PoisonError::into_inner);
            match &open.file {
                Some(file) => Arc::clone(file),
                None => {
                    let opened = Arc::new(if open.made {
                        self.target.existing(&path).map_err(|error| fail("open", error))?
                    } else {
                        let made = self
                            .create(piece.file, dirs)
                            .map_err(|error| fail("create", error))?;
                        made.set_len(file.size).map_err(|error| fail("resize", error))?;
                        made
                    });
                    open.made = true;
                    open.file = Some(Arc::clone(&opened));
                    shared.open_files.fetch_add(1, Ordering::Relaxed);
                    opened
                }
            }
        };
        self.put(
            &open,
            &path,
            plain,
            piece.file_offset,
            !self.standing.files[number],
        )?;
        let last = slot.missing.fetch_sub(1, Ordering::AcqRel) == 1;
        if last {
            self.finish(&open, piece.file, &path, true)?;
        }
        if last || shared.open_files.load(Ordering::Relaxed) > OPEN_FILES {
            let mut open = slot.open.lock().unwrap_or_else(PoisonError::into_inner);
            if open.file.take().is_some() {
                shared.open_files.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.meter.add(plain.len() as u64, u64::from(last));
        Ok(())
    }

    fn create(&self, number: u32, dirs: &mut LastDir) -> io::Result<File> {
        let file = &self.plan.files[number as usize];
        create_in(
            dirs.get(self.target, file.dir, &self.plan.dirs[file.dir as usize].path)?,
            &file.name,
        )
    }

    fn put(&self, file: &File, path: &Path, plain: &[u8], offset: u64, fresh: bool) -> Result<()> {
        let write = |from: usize, bytes: &[u8]| {
            if let Some(fault) = self.fault {
                fault.before_write(path)?;
            }
            file.write_all_at(bytes, offset + from as u64)
        };
        let result = if fresh && plain.len() >= HOLE {
            write_around_holes(plain, write).and_then(|holes| {
                // A hole at the end does not make the file longer by itself.
                if holes {
                    file.set_len_at_least(offset + plain.len() as u64)
                } else {
                    Ok(())
                }
            })
        } else {
            write(0, plain)
        };
        result.map_err(|error| EngineError::target("write", path, &error))
    }

    /// Everything is in the file: sets its length and metadata.
    fn finish(&self, open: &File, number: u32, path: &Path, check_length: bool) -> Result<()> {
        let file = &self.plan.files[number as usize];
        if check_length {
            open.set_len(file.size)
                .map_err(|error| EngineError::target("resize", path, &error))?;
        }
        let fresh = !self.standing.files[number as usize];
        for problem in meta::apply(open.as_fd(), &file.meta, self.root, fresh) {
            self.notes.metadata(path, problem);
        }
        Ok(())
    }

    /// A file whose content is all there: empty, or brought by an earlier attempt.
    fn settle(&self, number: u32, dirs: &mut LastDir) -> Result<()> {
        let path = self.plan.file_path(number);
        let open = if self.standing.files[number as usize] {
            self.target
                .existing(&path)
                .map_err(|error| EngineError::target("open", &path, &error))?
        } else {
            self.create(number, dirs)
                .map_err(|error| EngineError::target("create", &path, &error))?
        };
        self.finish(&open, number, &path, true)?;
        self.meter.add(self.plan.files[number as usize].size, 1);
        Ok(())
    }

    fn affected(&self, shared: &Shared, pack: u32) -> (Vec<String>, u64) {
        let mut numbers: Vec<u32> = shared
            .pieces
            .iter()
            .filter(|piece| piece.pack == pack)
            .map(|piece| piece.file)
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        let more = numbers.len().saturating_sub(NAMED) as u64;
        let named = numbers
            .iter()
            .take(NAMED)
            .map(|file| self.plan.file_path(*file).display().to_string())
            .collect();
        (named, more)
    }
}

trait GrowTo {
    fn set_len_at_least(&self, length: u64) -> io::Result<()>;
}

impl GrowTo for File {
    fn set_len_at_least(&self, length: u64) -> io::Result<()> {
        if self.metadata()?.len() < length {
            self.set_len(length)
        } else {
            Ok(())
        }
    }
}
