//! The demo's data: what real services have, and what trips backups up.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use reseed_core::entropy::{Entropy as _, SplitMix};
use reseed_core::error::OpError;

const SMALL_FILES: u32 = 2_000;
const LARGE_FILES: u32 = 3;
const LARGE_BYTES: usize = 24 << 20;

/// Fills a new directory, with so many times less than all of it.
pub(super) fn make(root: &Path, less: u32) -> Result<(), OpError> {
    let io = |error: io::Error| {
        OpError::io(
            format!("can't make the demo's data in {}", root.display()),
            &error,
        )
    };
    files(root, less).map_err(io)?;
    database(&root.join("library.db")).map_err(|error| {
        OpError::new(
            reseed_core::error::OpKind::Failed,
            format!("can't make the demo's database: {error}"),
        )
    })
}

fn files(root: &Path, less: u32) -> io::Result<()> {
    fs::create_dir_all(root)?;
    let random = SplitMix::seeded(42);
    for n in 0..SMALL_FILES / less {
        let dir = root.join(format!("albums/{:02}", n % 40));
        if n < 40 {
            fs::create_dir_all(&dir)?;
        }
        let size = usize::try_from(random.next_u64() % 6_000).unwrap_or(0);
        fs::write(dir.join(format!("{n:04}.json")), noise(&random, size))?;
    }
    for n in 0..LARGE_FILES {
        fs::write(
            root.join(format!("video-{n}.mkv")),
            noise(&random, LARGE_BYTES / usize::try_from(less).unwrap_or(1)),
        )?;
    }
    let odd = root.join("odd names");
    fs::create_dir(&odd)?;
    for name in [
        &b"new\nline"[..],
        b"quote'\"s",
        "grüße".as_bytes(),
        b"-rf",
        b"not\xffutf8",
        b"* ?",
    ] {
        fs::write(odd.join(OsStr::from_bytes(name)), b"odd")?;
    }
    symlink("../video-0.mkv", odd.join("link"))?;
    symlink("/nowhere", odd.join("dangling"))?;
    fs::hard_link(root.join("video-1.mkv"), odd.join("hard link"))?;
    fs::create_dir(root.join("empty"))?;
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o700))?;
    let mut sparse = fs::File::create(root.join("sparse.img"))?;
    sparse.seek(SeekFrom::Start((32 << 20) / u64::from(less)))?;
    sparse.write_all(b"end")?;
    sparse.sync_all()
}

fn noise(random: &SplitMix, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend_from_slice(&random.next_u64().to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// A database as a running service leaves it: with a write-ahead log beside it.
fn database(path: &Path) -> rusqlite::Result<()> {
    let connection = rusqlite::Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.execute_batch("create table photo(id integer primary key, name text, at text)")?;
    write_rows(&connection, 0)
}

/// Goes on writing, as the service would.
pub(super) fn write_more(path: &Path, round: u32) -> rusqlite::Result<()> {
    let connection = rusqlite::Connection::open(path)?;
    write_rows(&connection, round)
}

fn write_rows(connection: &rusqlite::Connection, round: u32) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    {
        let mut insert =
            transaction.prepare("insert into photo(name, at) values (?1, datetime(?2, 'unixepoch'))")?;
        for n in 0..2_000_u32 {
            insert.execute((format!("photo-{round}-{n}.jpg"), 1_700_000_000_u32 + n))?;
        }
    }
    transaction.commit()
}
