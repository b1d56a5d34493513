//! The demo's pools: one for the live data, one for the copies, each on a file in the lab.
//!
//! Everything here is destroyed with the lab, so nothing is touched whose name isn't one of the two that were made here.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use reseed_core::error::{Effect, OpError, OpKind};
use reseed_core::exec::{Command, Runner as _, SystemRunner};
use tokio_util::sync::CancellationToken;

use super::SERVICE;

/// Size of each pool's file, which is sparse.
const BYTES: u64 = 1 << 30;
/// What ZFS reads and writes at least; also the length of what is looked for on a disk.
const SECTOR: usize = 512;

/// Two pools.
#[derive(Debug)]
pub(super) struct Pools {
    dir: PathBuf,
    live: String,
    back: String,
    cancel: CancellationToken,
}

fn io(what: &str) -> impl Fn(std::io::Error) -> OpError + '_ {
    move |error| OpError::io(what, &error)
}

impl Pools {
    /// Makes them, and the service's dataset, mounted where its data is to be.
    pub(super) async fn make(dir: &Path, cancel: CancellationToken) -> Result<Self, OpError> {
        let id = std::process::id();
        let pools = Self {
            dir: dir.to_owned(),
            live: format!("reseed-demo-{id}-live"),
            back: format!("reseed-demo-{id}-back"),
            cancel,
        };
        for pool in [&pools.live, &pools.back] {
            let disk = pools.disk(pool);
            fs::File::create_new(&disk)
                .and_then(|file| file.set_len(BYTES))
                .map_err(io("can't make a disk for the lab"))?;
            let words = ["create", "-O", "compression=off", "-O", "mountpoint=none", pool];
            let create = Command::new("zpool").args(words).arg(&disk);
            pools.run(create).await.map_err(|error| {
                error.hint(
                    "this needs root and ZFS; `reseed demo --vm` brings both, `reseed demo` does without",
                )
            })?;
        }
        let mountpoint = format!("mountpoint={}", dir.join("data").join(SERVICE).display());
        for words in [
            vec!["create", "-o", "canmount=off", &pools.root()],
            vec!["create", "-o", "canmount=off", &pools.copies()],
            vec!["create", "-o", &mountpoint, &pools.dataset()],
        ] {
            pools.zfs(&words).await?;
        }
        Ok(pools)
    }

    fn disk(&self, pool: &str) -> PathBuf {
        self.dir.join(format!("{pool}.disk"))
    }

    fn root(&self) -> String {
        format!("{}/svc", self.live)
    }

    fn copies(&self) -> String {
        format!("{}/copies", self.back)
    }

    fn dataset(&self) -> String {
        format!("{}/{SERVICE}", self.root())
    }

    async fn run(&self, command: Command) -> Result<String, OpError> {
        let what = format!("`{command}` failed in the lab");
        let output = SystemRunner::new().run(&command, &self.cancel).await;
        let output = output.and_then(|output| output.require_success());
        output
            .map(|output| output.stdout.text().into_owned())
            .map_err(|error| error.into_error::<OpKind>(what, Effect::None))
    }

    async fn zfs(&self, words: &[&str]) -> Result<String, OpError> {
        self.run(Command::new("zfs").args(words.iter().copied())).await
    }

    async fn zpool(&self, words: &[&str]) -> Result<String, OpError> {
        self.run(Command::new("zpool").args(words.iter().copied())).await
    }

    /// The two places of the configuration.
    pub(super) fn config(&self) -> String {
        format!(
            "[stores.local]\ntype = \"zfs\"\nroot = \"{}\"\n\n[replicas.replica]\ntype = \"zfs\"\nroot = \"{}\"\n",
            self.root(),
            self.copies()
        )
    }

    /// Destroys the dataset with all its snapshots, also those that reseed holds: this is the disaster.
    pub(super) async fn destroy_data(&self) -> Result<(), OpError> {
        let dataset = self.dataset();
        let listed = self
            .zfs(&["list", "-Hp", "-t", "snapshot", "-o", "userrefs,name", &dataset])
            .await?;
        let held = listed.lines().filter_map(|line| line.split_once('\t'));
        for (_, snapshot) in held.filter(|(holds, _)| *holds != "0") {
            let holds = self.zfs(&["holds", "-H", snapshot]).await?;
            for tag in holds.lines().filter_map(|hold| hold.split('\t').nth(1)) {
                self.zfs(&["release", tag, snapshot]).await?;
            }
        }
        self.zfs(&["destroy", "-R", &self.dataset()]).await.map(drop)
    }

    /// The command that loses it without destroying anything.
    pub(super) fn how_to_lose(&self) -> String {
        format!("zfs unmount {0} && zfs rename {0} {0}-lost", self.dataset())
    }

    /// The command that removes both pools.
    pub(super) fn how_to_end(&self) -> String {
        format!("zpool destroy {}; zpool destroy {}", self.live, self.back)
    }

    /// Takes the copies' disk away.
    pub(super) async fn lose_replica(&self) -> Result<(), OpError> {
        self.zpool(&["export", &self.back]).await.map(drop)
    }

    /// Brings it back, if it is away.
    pub(super) async fn find_replica(&self) -> Result<(), OpError> {
        let there = self.zpool(&["list", "-H", "-o", "name"]).await?;
        if there.lines().any(|pool| pool == self.back) {
            return Ok(());
        }
        let dir = self.dir.display().to_string();
        self.zpool(&["import", "-d", &dir, &self.back]).await.map(drop)
    }

    /// Flips a bit wherever this sector is on the copies' only disk.
    pub(super) async fn corrupt(&self, sector: &[u8]) -> Result<(), OpError> {
        self.lose_replica().await?;
        let flipped = flip(&self.disk(&self.back), sector).map_err(io("can't spoil the lab's disk"))?;
        if flipped == 0 {
            return Err(OpError::new(
                OpKind::Failed,
                "the file that is to be spoiled isn't on the copies' disk",
            ));
        }
        self.find_replica().await
    }

    /// Keeps a replica that is damaged under another name: reseed itself destroys nothing there.
    pub(super) async fn set_replica_aside(&self) -> Result<(), OpError> {
        let replica = format!("{}/{}", self.copies(), self.dataset());
        self.zfs(&["rename", "-u", &replica, &format!("{replica}-corrupt")])
            .await
            .map(drop)
    }
}

fn flip(disk: &Path, sector: &[u8]) -> std::io::Result<usize> {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(disk)?;
    let (mut part, mut at, mut found) = (vec![0; 1 << 20], 0_u64, 0);
    while at < BYTES {
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut part)?;
        let hits: Vec<usize> = part
            .chunks(SECTOR)
            .enumerate()
            .filter(|(_, chunk)| *chunk == sector)
            .map(|(nth, _)| nth * SECTOR)
            .collect();
        for hit in hits {
            file.seek(SeekFrom::Start(at + u64::try_from(hit).unwrap_or(0)))?;
            file.write_all(&[sector[0] ^ 1])?;
            found += 1;
        }
        at += 1 << 20;
    }
    Ok(found)
}

/// A sector from the middle of a file.
pub(super) fn sector_of(file: &Path) -> Result<Vec<u8>, OpError> {
    let read = || {
        let mut open = fs::File::open(file)?;
        let middle = open.metadata()?.len() / 2;
        let sector = u64::try_from(SECTOR).unwrap_or(1);
        open.seek(SeekFrom::Start(middle / sector * sector))?;
        let mut bytes = vec![0; SECTOR];
        open.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(io("can't read the lab's data"))
}
