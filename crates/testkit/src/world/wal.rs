//! [`MemWal`]: [`WalArchiver`] over one of the world's archives, and the making of segments that it takes.
//!
//! It reads a segment's first page header, as a careful archiver must, and nothing behind it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use reseed_core::error::{Effect, WalError, WalKind};
use reseed_core::names::SourceName;
use reseed_core::wal::{Archived, BackupStatus, BaseBackup, Fetched, WalCaps, WalClass, WalFile};
use reseed_core::{Context, WalArchiver};

use super::World;
use super::source::reach;
use super::state::Link;
use crate::files::Files as _;

/// Where WAL is kept.
#[derive(Debug, Clone, Default)]
pub(super) struct WalArchive {
    pub(super) link: Link,
    pub(super) files: BTreeMap<WalFile, Arc<[u8]>>,
    pub(super) backups: BTreeMap<String, BaseBackup>,
}

/// One of the world's archives, for one cluster.
#[derive(Debug, Clone)]
pub struct MemWal {
    world: World,
    name: SourceName,
    system_id: u64,
    segment_size: u64,
}

/// The page header of PostgreSQL's `XLogLongPageHeaderData`, little-endian, as far as an archiver reads it.
const HEADER: usize = 40;
/// `XLOG_PAGE_MAGIC` of PostgreSQL 15.
const MAGIC: u16 = 0xd110;
/// `XLP_LONG_HEADER`.
const LONG: u16 = 2;

/// A segment as PostgreSQL would have written it: a right header, then `fill`.
///
/// # Panics
/// When `file` is not a segment or the size is no power of two that holds a header.
pub fn wal_segment(file: &WalFile, system_id: u64, segment_size: u64, fill: u8) -> Vec<u8> {
    let len = match usize::try_from(segment_size) {
        Ok(len) if len.is_power_of_two() && len > HEADER => len,
        _ => panic!("{segment_size} is no segment size"),
    };
    let Some((timeline, address)) = position(file, segment_size) else {
        panic!("{file} is no segment");
    };
    let mut bytes = vec![fill; len];
    bytes[0..2].copy_from_slice(&MAGIC.to_le_bytes());
    bytes[2..4].copy_from_slice(&LONG.to_le_bytes());
    bytes[4..8].copy_from_slice(&timeline.to_le_bytes());
    bytes[8..16].copy_from_slice(&address.to_le_bytes());
    bytes[16..24].fill(0);
    bytes[24..32].copy_from_slice(&system_id.to_le_bytes());
    bytes[32..36].copy_from_slice(&segment_size.to_le_bytes()[..4]);
    bytes[36..40].copy_from_slice(&8192u32.to_le_bytes());
    bytes
}

/// The timeline and the address that a segment's name stands for.
fn position(file: &WalFile, segment_size: u64) -> Option<(u32, u64)> {
    let text = file.as_str().get(..24)?;
    let timeline = u32::from_str_radix(&text[..8], 16).ok()?;
    let log = u64::from_str_radix(&text[8..16], 16).ok()?;
    let segment = u64::from_str_radix(&text[16..], 16).ok()?;
    (segment < (1 << 32) / segment_size).then_some((timeline, (log << 32) + segment * segment_size))
}

impl MemWal {
    /// An archive for one cluster.
    pub fn new(world: &World, name: SourceName, system_id: u64, segment_size: u64) -> Self {
        world.lock().wals.entry(name.clone()).or_default();
        Self {
            world: world.clone(),
            name,
            system_id,
            segment_size,
        }
    }

    fn archive_of<R>(&self, with: impl FnOnce(&mut WalArchive) -> R) -> R {
        with(self.world.lock().wals.entry(self.name.clone()).or_default())
    }

    fn reached(&self) -> Result<(), WalError> {
        self.archive_of(|archive| reach(&archive.link, &self.name))
    }

    /// W3 and W5: length, and what the header says.
    fn whole(&self, file: &WalFile, bytes: &[u8], effect: Effect) -> Result<(), WalError> {
        if !matches!(file.class(), WalClass::Segment | WalClass::Partial) {
            return Ok(());
        }
        let number = |at: usize, len: usize| {
            let mut value = [0u8; 8];
            value[..len].copy_from_slice(&bytes[at..at + len]);
            u64::from_le_bytes(value)
        };
        let wrong =
            |what: &str| Err(WalError::new(WalKind::WrongSegment, format!("{file} {what}")).effect(effect));
        if bytes.len() as u64 != self.segment_size || bytes.len() < HEADER {
            return wrong("is not as long as a segment");
        }
        let Some((timeline, address)) = position(file, self.segment_size) else {
            return wrong("can't be a segment of this size");
        };
        if number(0, 2) != u64::from(MAGIC) {
            return wrong("does not begin as WAL does");
        }
        if number(24, 8) != self.system_id {
            return wrong("is of another cluster");
        }
        if number(8, 8) != address || number(4, 4) > u64::from(timeline) {
            return wrong("is of another position than its name says");
        }
        Ok(())
    }
}

#[async_trait]
impl WalArchiver for MemWal {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn caps(&self) -> WalCaps {
        WalCaps {
            base_backup: true,
            segment_size: self.segment_size,
        }
    }

    async fn archive(&self, cx: &Context, file: &WalFile, path: &Path) -> Result<Archived, WalError> {
        self.world.step(cx, Effect::None).await?;
        let Some(bytes) = self.world.read(path) else {
            let what = format!("{} does not exist", path.display());
            return Err(WalError::new(WalKind::NotFound, what));
        };
        self.whole(file, &bytes, Effect::None)?;
        self.reached()?;
        self.world.step(cx, Effect::None).await?;
        let archived = self.archive_of(|archive| match archive.files.get(file) {
            Some(there) if there.as_ref() == bytes.as_slice() => Ok(Archived::AlreadyThere),
            Some(_) => {
                let what = format!("{file} is archived with other content");
                Err(WalError::new(WalKind::DifferentContent, what))
            }
            None => {
                archive.files.insert(file.clone(), bytes.into());
                Ok(Archived::Stored)
            }
        })?;
        self.world.step(cx, Effect::Partial).await?;
        Ok(archived)
    }

    async fn fetch(&self, cx: &Context, file: &WalFile, to: &Path) -> Result<Fetched, WalError> {
        self.world.step(cx, Effect::None).await?;
        self.reached()?;
        let Some(bytes) = self.archive_of(|archive| archive.files.get(file).cloned()) else {
            return Ok(Fetched::NotFound);
        };
        self.whole(file, &bytes, Effect::None)?;
        let beside = to.with_extension("reseed-tmp");
        self.world.write(&beside, &bytes[..bytes.len() / 2]);
        if let Err(error) = self.world.step(cx, Effect::StagingOnly).await {
            self.world.remove(&beside);
            return Err(error);
        }
        self.world.write(&beside, &bytes);
        self.world.rename(&beside, to);
        self.world.step(cx, Effect::Partial).await?;
        Ok(Fetched::Delivered(to.to_owned()))
    }

    async fn list(&self, cx: &Context) -> Result<Vec<WalFile>, WalError> {
        self.world.step(cx, Effect::None).await?;
        self.reached()?;
        Ok(self.archive_of(|archive| archive.files.keys().cloned().collect()))
    }

    async fn backups(&self, cx: &Context) -> Result<Vec<BaseBackup>, WalError> {
        self.world.step(cx, Effect::None).await?;
        self.reached()?;
        let mut all: Vec<BaseBackup> = self.archive_of(|archive| archive.backups.values().cloned().collect());
        all.sort_by_key(|backup| backup.began);
        Ok(all)
    }

    async fn base_backup(&self, cx: &Context, data: &Path) -> Result<BaseBackup, WalError> {
        self.world.step(cx, Effect::None).await?;
        self.reached()?;
        let Some(tree) = self
            .world
            .lock()
            .resolve(data)
            .and_then(|(tree, rel)| tree.part(&rel))
        else {
            let what = format!("{} does not exist", data.display());
            return Err(WalError::new(WalKind::NotFound, what));
        };
        let mut backup = self.archive_of(|archive| {
            let newest = archive.backups.values().map(|backup| backup.began).max();
            let began = newest.map_or(Timestamp::UNIX_EPOCH, |newest| {
                newest
                    .saturating_add(jiff::SignedDuration::from_secs(1))
                    .unwrap_or(newest)
            });
            let backup = BaseBackup {
                id: began.strftime("%Y%m%dT%H%M%S").to_string(),
                status: BackupStatus::Started,
                began,
                ended: None,
                begin_wal: None,
                end_wal: None,
                bytes: None,
            };
            archive.backups.insert(backup.id.clone(), backup.clone());
            backup
        });
        self.world.step(cx, Effect::Partial).await?;
        backup.status = BackupStatus::Done;
        backup.ended = Some(backup.began);
        backup.bytes = Some(tree.size());
        self.archive_of(|archive| archive.backups.insert(backup.id.clone(), backup.clone()));
        self.world.step(cx, Effect::Partial).await?;
        Ok(backup)
    }
}

impl World {
    /// Sets the line to an archive.
    pub fn wal_link(&self, name: &SourceName, link: Link) {
        self.lock().wals.entry(name.clone()).or_default().link = link;
    }

    /// Puts a file into an archive behind everybody's back; none takes it away.
    pub fn put_wal(&self, name: &SourceName, file: &WalFile, bytes: Option<&[u8]>) {
        let mut state = self.lock();
        let archive = state.wals.entry(name.clone()).or_default();
        match bytes {
            Some(bytes) => archive.files.insert(file.clone(), bytes.into()),
            None => archive.files.remove(file),
        };
    }

    /// What an archive has under a name.
    pub fn wal_content(&self, name: &SourceName, file: &WalFile) -> Option<Vec<u8>> {
        let state = self.lock();
        state.wals.get(name)?.files.get(file).map(|bytes| bytes.to_vec())
    }

    /// Puts a base backup into an archive.
    pub fn put_backup(&self, name: &SourceName, backup: BaseBackup) {
        let mut state = self.lock();
        let archive = state.wals.entry(name.clone()).or_default();
        archive.backups.insert(backup.id.clone(), backup);
    }
}
