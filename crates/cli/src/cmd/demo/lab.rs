//! The demo's lab: one service, a store, a replica and an off-site repository, all in one directory, or with pools on files in
//! it for the first two.

use std::fs;
use std::path::{Path, PathBuf};

use reseed_core::Service;
use reseed_core::error::{OpError, OpKind};
use reseed_core::exec::{Command, Exit as ChildExit, Runner as _, SystemRunner};
use reseed_core::lock::Claim;
use reseed_core::ops::{self, OpOutcome, OpReport};
use reseed_core::point::Fingerprint;
use reseed_core::preseed::{self, ServiceReport};
use tokio_util::sync::CancellationToken;

use super::pools::{Pools, sector_of};
use super::{SERVICE, data};
use crate::session::Session;
use crate::ui::{Lines, Ui};

/// A lab.
pub(super) struct Lab {
    pub(super) dir: PathBuf,
    session: Session,
    service: Service,
    round: std::cell::Cell<u32>,
    /// With ZFS.
    pools: Option<Pools>,
    /// With ZFS: what is looked for on the disk when the replica is to be spoiled.
    sector: std::cell::RefCell<Option<Vec<u8>>>,
    corrupted: std::cell::Cell<bool>,
}

/// The file that a bit flips in.
const SPOILED: &str = "video-2.mkv";

/// How a preseed that was to be killed ended.
pub(super) struct Crashed {
    pub(super) killed: bool,
    pub(super) end: String,
}

fn io(what: &str) -> impl Fn(std::io::Error) -> OpError + '_ {
    move |error| OpError::io(what, &error)
}

impl Lab {
    pub(super) async fn make(
        dir: Option<PathBuf>,
        zfs: bool,
        cancel: CancellationToken,
    ) -> Result<Self, OpError> {
        let dir = match dir {
            Some(dir) => {
                let dir = std::path::absolute(&dir).map_err(io("the lab's directory is no path"))?;
                // A lab destroys what is in it, so it must be new.
                fs::create_dir(&dir).map_err(|e| {
                    OpError::io(format!("can't make the lab {}", dir.display()), &e)
                        .hint("name a directory that doesn't exist yet")
                })?;
                dir
            }
            None => tempfile::Builder::new()
                .prefix("reseed-demo-")
                .tempdir()
                .map_err(io("can't make a temporary directory"))?
                .keep(),
        };
        let dir = dir.canonicalize().map_err(io("can't find the lab"))?;
        fs::create_dir(dir.join("data")).map_err(io("can't make the lab"))?;
        let password = dir.join("password");
        fs::write(&password, "only for the demo\n").map_err(io("can't write the lab's password"))?;
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600))
            .map_err(io("can't protect the lab's password"))?;
        let pools = match zfs {
            true => Some(Pools::make(&dir, cancel.clone()).await?),
            false => None,
        };
        let path = dir.join("reseed.toml");
        fs::write(&path, config(&dir, pools.as_ref())).map_err(io("can't write the lab's configuration"))?;
        let ui = Ui::silent();
        let log = fs::File::create(dir.join("events.log")).map_err(io("can't write the lab's log"))?;
        let session = Session::open(&path, ui, std::sync::Arc::new(Lines::to(log)), cancel)
            .map_err(|errors| OpError::new(OpKind::Config, errors.to_string()))?;
        let service = session.service(SERVICE)?;
        Ok(Self {
            dir,
            session,
            service,
            round: std::cell::Cell::new(0),
            pools,
            sector: std::cell::RefCell::default(),
            corrupted: std::cell::Cell::default(),
        })
    }

    /// Where the service's data is.
    pub(super) fn live(&self) -> PathBuf {
        self.dir.join("data").join(SERVICE)
    }

    /// Makes what isn't there yet, and brings every copy up to date.
    pub(super) async fn protect(&self) -> Result<(), OpError> {
        let s = &self.session;
        for (_, place) in s.places() {
            place.init(&s.cx).await?;
        }
        for (_, repo) in s.repos() {
            if repo.open(&s.cx).await.is_err() {
                repo.init(&s.cx).await.map_err(|e| e.convert(OpKind::Failed))?;
            }
        }
        let round = self.round.get();
        self.round.set(round + 1);
        // The service writes between two rounds of protection, as services do.
        data::write_more(&self.live().join("library.db"), round + 1)
            .map_err(|e| OpError::new(OpKind::Failed, format!("the demo's service can't write: {e}")))?;
        let now = s.engine.clock.now().to_zoned(jiff::tz::TimeZone::UTC);
        let name = reseed_core::names::SnapshotName::new(format!(
            "demo_{round}_{}",
            now.strftime("%Y-%m-%d_%H:%M:%S")
        ));
        let name = name.map_err(|e| OpError::new(OpKind::InvalidInput, e.to_string()))?;
        good(&[ops::snapshot(&s.engine, &s.cx, &self.service, &name).await])?;
        good(&ops::replicate(&s.engine, &s.cx, &self.service).await)?;
        good(&ops::backup(&s.engine, &s.cx, &self.service).await)
    }

    /// The digest of the live data.
    pub(super) async fn digest(&self) -> Result<Fingerprint, OpError> {
        self.session
            .engine
            .verifier
            .measure(&self.session.cx, &self.live())
            .await
    }

    pub(super) async fn preseed(&self) -> Result<ServiceReport, OpError> {
        let s = &self.session;
        let _lock = s
            .lock(
                &self.service.name,
                ("preseed", Claim::Alone),
                std::time::Duration::ZERO,
            )
            .await?;
        let mut reports =
            preseed::preseed(&s.engine, &s.cx, &[&self.service], s.engine.clock.monotonic()).await;
        reports
            .pop()
            .ok_or_else(|| OpError::new(OpKind::Failed, "the preseed said nothing"))
    }

    /// Runs `reseed preseed` as a process of its own that is killed halfway.
    pub(super) async fn crash_preseed(&self) -> Result<Crashed, OpError> {
        let program = std::env::current_exe().map_err(io("can't find this program"))?;
        let command = Command::new(program)
            .args(["--quiet", "--config"])
            .arg(self.dir.join("reseed.toml"))
            .args(["preseed", SERVICE, "--crash-after", "20000000"]);
        let output = SystemRunner::new().run(&command, &self.session.cx.cancel).await;
        let output = output.map_err(|e| {
            e.into_error(
                "can't run the preseed that is to be killed",
                reseed_core::error::Effect::StagingOnly,
            )
        })?;
        Ok(Crashed {
            killed: matches!(output.exit, ChildExit::Signal(_)),
            end: format!("{}", output.exit),
        })
    }

    /// Whether the unseeded guard keeps older points from being pruned.
    pub(super) async fn guarded(&self) -> Result<bool, OpError> {
        let policy = self.session.retention_policy(&self.service.name);
        match ops::prune_plan(&self.session.engine, &self.session.cx, &self.service, &policy).await {
            Err(error) if error.kind() == OpKind::Guarded => Ok(true),
            Err(error) => Err(error),
            Ok(_) => Ok(false),
        }
    }

    /// With ZFS: the command that loses the service's data.
    pub(super) fn how_to_lose(&self) -> Option<String> {
        self.pools.as_ref().map(Pools::how_to_lose)
    }

    /// With ZFS: the command that removes what the lab made.
    pub(super) fn how_to_end(&self) -> Option<String> {
        self.pools.as_ref().map(Pools::how_to_end)
    }

    /// Whether there is anything where the data should be.
    pub(super) fn is_live(&self) -> bool {
        fs::read_dir(self.live()).is_ok_and(|mut entries| entries.next().is_some())
    }

    pub(super) async fn destroy_data(&self) -> Result<(), OpError> {
        if let Some(pools) = &self.pools {
            *self.sector.borrow_mut() = Some(sector_of(&self.live().join(SPOILED))?);
            return pools.destroy_data().await;
        }
        fs::remove_dir_all(self.live()).map_err(io("can't destroy the lab's data"))
    }

    pub(super) async fn lose_replica(&self) -> Result<(), OpError> {
        if let Some(pools) = &self.pools {
            return pools.lose_replica().await;
        }
        fs::rename(self.dir.join("replica"), self.dir.join("replica.gone"))
            .map_err(io("can't take the lab's replica away"))
    }

    pub(super) fn lose_offsite(&self) -> Result<(), OpError> {
        fs::rename(self.dir.join("offsite"), self.dir.join("offsite.gone"))
            .map_err(io("can't take the lab's repository away"))
    }

    /// Flips a bit of the newest copy of a large file on the replica.
    pub(super) async fn corrupt_replica(&self) -> Result<String, OpError> {
        self.corrupted.set(true);
        if let Some(pools) = &self.pools {
            let sector = self.sector.borrow().clone().unwrap_or_default();
            pools.corrupt(&sector).await?;
            return Ok(SPOILED.to_owned());
        }
        let mut found = Vec::new();
        find(&self.dir.join("replica"), SPOILED, &mut found)
            .map_err(io("can't look through the lab's replica"))?;
        // All snapshots share the file, so one flip reaches every one of them, as bad blocks do.
        let path = found
            .first()
            .ok_or_else(|| OpError::new(OpKind::Failed, format!("the replica holds no {SPOILED}")))?;
        let time = fs::metadata(path)
            .and_then(|m| m.modified())
            .map_err(io("can't read the replica's file"))?;
        let mut bytes = fs::read(path).map_err(io("can't read the replica's file"))?;
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 1;
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .open(path)
            .map_err(io("can't write the replica's file"))?;
        use std::io::Write as _;
        file.write_all(&bytes)
            .map_err(io("can't write the replica's file"))?;
        // Silent, as bit rot is.
        file.set_modified(time)
            .map_err(io("can't write the replica's file"))?;
        Ok(SPOILED.to_owned())
    }

    /// Brings back what a scenario took away, so that the next one begins with everything protected.
    pub(super) async fn mend(&self, started_empty: bool) -> Result<(), OpError> {
        if let Some(pools) = &self.pools {
            pools.find_replica().await?;
        }
        for name in ["replica", "offsite"] {
            let gone = self.dir.join(format!("{name}.gone"));
            if gone.exists() {
                fs::rename(&gone, self.dir.join(name)).map_err(io("can't bring the lab's copy back"))?;
            }
        }
        if self.corrupted.take() {
            // A replica that is damaged is replaced by hand: reseed destroys nothing there.
            match &self.pools {
                Some(pools) => pools.set_replica_aside().await?,
                None => fs::rename(self.dir.join("replica"), self.dir.join("replica.corrupt"))
                    .map_err(io("can't set the corrupt replica aside"))?,
            }
        }
        if started_empty {
            // The sources are back: an empty target is restored by the very same command.
            let again = self.preseed().await?;
            if again.outcome != preseed::Outcome::Restored {
                return Err(OpError::new(
                    OpKind::Failed,
                    format!("after the sources came back: {}", again.summary()),
                ));
            }
        }
        self.protect().await
    }
}

fn good(reports: &[OpReport]) -> Result<(), OpError> {
    match reports
        .iter()
        .find(|r| !matches!(r.outcome, OpOutcome::Ok | OpOutcome::UpToDate))
    {
        None => Ok(()),
        Some(bad) => Err(OpError::new(OpKind::Failed, bad.summary())),
    }
}

fn find(dir: &Path, name: &str, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find(&entry.path(), name, found)?;
        } else if entry.file_name() == name {
            found.push(entry.path());
        }
    }
    Ok(())
}

/// The local store is no source here: its snapshots are on the same disk, and the demo is about losing that.
fn config(dir: &Path, pools: Option<&Pools>) -> String {
    let lab = dir.display();
    let places = pools.map_or_else(
        || {
            format!(
                "[stores.local]\ntype = \"directory\"\npath = \"{lab}/snapshots\"\n\n\
                 [replicas.replica]\ntype = \"directory\"\npath = \"{lab}/replica\"\n"
            )
        },
        Pools::config,
    );
    format!(
        r#"# The lab of `reseed demo`.
host = "demo"
state_dir = "{lab}/state"

{places}
[offsite.offsite]
type = "embedded"
repository = "{lab}/offsite"
password_file = "{lab}/password"

[services.{SERVICE}]
path = "{lab}/data/{SERVICE}"
chain = ["replica", "offsite"]
when_exhausted = "start-empty"
tries = 1
validators = [{{ sqlite = {{ path = "library.db" }} }}]

[services.{SERVICE}.retention]
hourly = 24
"#
    )
}
