//! Restores into a directory that were begun: whoever says so goes on there, and a source makes it equal to its point. What is finished, or
//! was never begun by reseed, is somebody's, and is never written over.
//!
//! That is written down beside the directory, `.NAME.reseed-unfinished`, and not in it: there it would come back with the data. It is
//! bound to the directory itself, and by more than its number: that is given to another one as soon as it is removed, and is the same for
//! the topmost directory of many file systems. So is when it was made, to the nanosecond, and where a file system doesn't tell
//! that nothing is gone on with.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags};
use serde::{Deserialize, Serialize};

use crate::names::ServiceName;

const ASKED: StatxFlags = StatxFlags::TYPE.union(StatxFlags::INO).union(StatxFlags::BTIME);

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    service: ServiceName,
    device: u64,
    inode: u64,
    /// Seconds and nanoseconds.
    born: (i64, u32),
}

impl Note {
    fn of(dir: &Path, service: &ServiceName) -> io::Result<Self> {
        let found = rustix::fs::statx(CWD, dir, AtFlags::SYMLINK_NOFOLLOW, ASKED)?;
        let told = StatxFlags::from_bits_retain(found.stx_mask).contains(ASKED);
        if !told || FileType::from_raw_mode(found.stx_mode.into()) != FileType::Directory {
            return Err(io::Error::other("its file system doesn't tell when it was made"));
        }
        Ok(Self {
            service: service.clone(),
            device: rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            born: (found.stx_btime.tv_sec, found.stx_btime.tv_nsec),
        })
    }
}

fn beside(dir: &Path) -> io::Result<PathBuf> {
    let dir = std::path::absolute(dir)?;
    let (Some(above), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(io::Error::other("it has no place beside it"));
    };
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(".reseed-unfinished");
    Ok(above.join(beside))
}

/// A link could point it at somebody's file.
fn options() -> std::fs::OpenOptions {
    let mut options = std::fs::OpenOptions::new();
    options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    options
}

/// Whether a restore of this service has begun to fill exactly this directory, and has not finished.
pub(super) fn is_of(dir: &Path, service: &ServiceName) -> bool {
    let read = || -> io::Result<Note> {
        let mut text = String::new();
        let file = options().read(true).open(beside(dir)?)?;
        // Anybody may put a file into a directory that all share.
        if file.metadata()?.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other("it is somebody else's"));
        }
        file.take(4096).read_to_string(&mut text)?;
        Ok(serde_json::from_str(&text)?)
    };
    matches!((read(), Note::of(dir, service)), (Ok(there), Ok(wanted)) if there == wanted)
}

/// What a file system writes as a time is the one of the kernel's last tick, and there are at least a hundred of those in a second.
const TWO_TICKS: Duration = Duration::from_millis(20);

/// Writes it down. When that has returned, a directory that is made is younger than this one: of two that are made in one tick, the second may
/// have number and time of the first.
#[expect(
    clippy::disallowed_methods,
    reason = "it is the file system's time that has to go on"
)]
pub(super) fn begin(dir: &Path, service: &ServiceName) -> io::Result<()> {
    let text = serde_json::to_vec(&Note::of(dir, service)?)?;
    let mut file = options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(beside(dir)?)?;
    file.write_all(&text)?;
    file.sync_all()?;
    std::thread::sleep(TWO_TICKS);
    Ok(())
}

/// It is finished, also after a power cut.
pub(super) fn end(dir: &Path) -> io::Result<()> {
    let note = beside(dir)?;
    match std::fs::remove_file(&note) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match note.parent() {
        Some(above) => std::fs::File::open(above)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_begun_for_the_same_service_in_the_same_directory_is_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let (at, elsewhere) = (dir.path().join("out"), dir.path().join("other"));
        let (app, other) = (
            ServiceName::new("app").unwrap(),
            ServiceName::new("other").unwrap(),
        );
        std::fs::create_dir(&at).unwrap();
        assert!(!is_of(&at, &app));
        begin(&at, &app).unwrap();
        assert!(is_of(&at, &app) && !is_of(&at, &other));
        // Another directory of the same name, and the same one under another.
        std::fs::rename(&at, &elsewhere).unwrap();
        assert!(!is_of(&at, &app) && !is_of(&elsewhere, &app));
        std::fs::create_dir(&at).unwrap();
        assert!(!is_of(&at, &app));
        std::fs::remove_dir(&at).unwrap();
        std::fs::rename(&elsewhere, &at).unwrap();
        assert!(is_of(&at, &app));
        // One that is made where it was removed, and may well get its number, at once.
        for _ in 0..20 {
            std::fs::remove_dir(&at).unwrap();
            std::fs::create_dir(&at).unwrap();
            assert!(!is_of(&at, &app));
        }
        begin(&at, &app).unwrap();
        end(&at).unwrap();
        end(&at).unwrap();
        assert!(!is_of(&at, &app));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// Within one tick, as often as not.
    #[test]
    fn one_that_takes_its_place_at_once_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let (at, app) = (dir.path().join("out"), ServiceName::new("app").unwrap());
        for _ in 0..20 {
            std::fs::create_dir(&at).unwrap();
            begin(&at, &app).unwrap();
            std::fs::remove_dir(&at).unwrap();
            std::fs::create_dir(&at).unwrap();
            assert!(!is_of(&at, &app));
            std::fs::remove_dir(&at).unwrap();
        }
    }

    #[test]
    fn what_is_no_note_says_nothing_and_a_link_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (at, app) = (dir.path().join("out"), ServiceName::new("app").unwrap());
        std::fs::create_dir(&at).unwrap();
        let note = beside(&at).unwrap();
        for text in [
            "",
            "{",
            "{}",
            r#"{"service":"app","device":-1,"inode":0,"born":[0,0]}"#,
        ] {
            std::fs::write(&note, text).unwrap();
            assert!(!is_of(&at, &app), "{text}");
        }
        std::fs::remove_file(&note).unwrap();
        let precious = dir.path().join("precious");
        std::fs::write(&precious, "all").unwrap();
        std::os::unix::fs::symlink(&precious, &note).unwrap();
        assert!(begin(&at, &app).is_err() && !is_of(&at, &app));
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "all");
        assert!(begin(Path::new("/"), &app).is_err());
    }
}
