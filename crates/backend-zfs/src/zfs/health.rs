//! [`Pools`]: how this machine's pools are, and scrubbing them.
//!
//! Promises that a pool that can't be asked about is told as such, never as healthy, and that two processes tell the state of
//! any number of pools. Numbers are exact where the tool has them exact; what a scan brought to light is read from the
//! words of `zpool status`, which are the same from 2.1 to 2.3 (the JSON of 2.3 says no more).
//!
//! Starts scrubs, and changes nothing else: no pool is imported, cleared or repaired here.

mod read;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reseed_core::Context;
use reseed_core::clock::Clock;
use reseed_core::error::{Effect, StoreError, StoreKind};
use reseed_core::exec::{Output, Runner};
use serde::Serialize;

use super::location::Location;
use super::tool::{Tool, not_cancelled, not_understood};

/// How often a scrub that is followed is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The state of a pool that isn't there. One that is suspended has no numbers either.
const NOT_IMPORTED: &str = "NOT IMPORTED";
/// The tool's word for a pool that has stopped all reading and writing.
const SUSPENDED: &str = "SUSPENDED";

/// A pool, as it is now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PoolHealth {
    /// Its name.
    pub name: String,
    /// The tool's word: `ONLINE`, `DEGRADED`, `SUSPENDED`, ...; `NOT IMPORTED` when it isn't there.
    pub state: String,
    /// Bytes of all its devices.
    pub size: Option<u64>,
    /// Bytes in use.
    pub allocated: Option<u64>,
    /// Bytes not in use.
    pub free: Option<u64>,
    /// How fragmented its free space is, in percent.
    pub fragmentation: Option<u8>,
    /// How full it is, in percent.
    pub capacity: Option<u8>,
    /// The newest scrub or resilver.
    pub scan: Option<Scan>,
    /// Files and metadata that are damaged beyond repair; none when it isn't known.
    pub data_errors: Option<u64>,
    /// Devices that aren't online, or that had errors.
    pub troubled: Vec<Device>,
    /// What the tool says is wrong, in its words.
    pub status: Option<String>,
    /// What the tool advises.
    pub action: Option<String>,
}

impl PoolHealth {
    fn not_imported(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: NOT_IMPORTED.to_owned(),
            size: None,
            allocated: None,
            free: None,
            fragmentation: None,
            capacity: None,
            scan: None,
            data_errors: None,
            troubled: Vec::new(),
            status: None,
            action: None,
        }
    }

    /// Whether nothing is wrong with it.
    pub fn is_well(&self) -> bool {
        self.state == "ONLINE" && self.data_errors == Some(0) && self.troubled.is_empty()
    }
}

/// A pass over a pool's data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scan {
    /// What for.
    pub function: ScanFunction,
    /// How far it is.
    pub state: ScanState,
    /// When it ended or, of one that hasn't, when it began.
    pub at: Option<Timestamp>,
    /// How many errors it could not repair; of one that has ended.
    pub errors: Option<u64>,
    /// How much of it is done; of one that hasn't ended.
    pub percent: Option<f64>,
    /// What it repaired, in the tool's words.
    pub repaired: Option<String>,
}

/// What a pass over the data is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScanFunction {
    /// Reading everything and comparing it with its checksums.
    Scrub,
    /// Filling a device anew.
    Resilver,
}

/// How far a pass over the data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScanState {
    /// Done.
    Finished,
    /// Under way.
    Running,
    /// Stopped for now.
    Paused,
    /// Given up.
    Canceled,
}

/// A device of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// As the tool calls it.
    pub name: String,
    /// `ONLINE`, `FAULTED`, ...
    pub state: String,
    /// Errors on reading.
    pub read: u64,
    /// Errors on writing.
    pub write: u64,
    /// Checksums that did not match.
    pub checksum: u64,
}

/// The pools of this machine.
#[derive(Debug, Clone)]
pub struct Pools {
    tool: Tool,
    clock: Arc<dyn Clock>,
}

fn args<'a>(fixed: &[&'a str], names: impl IntoIterator<Item = &'a str>) -> Vec<OsString> {
    fixed.iter().copied().chain(names).map(OsString::from).collect()
}

impl Pools {
    /// Nothing is asked yet.
    pub fn new(runner: Arc<dyn Runner>, clock: Arc<dyn Clock>) -> Self {
        let tool = Tool::new(runner, Location::Local);
        Self { tool, clock }
    }

    /// How these pools are, in their order. One that isn't imported is told as that.
    ///
    /// # Errors
    /// When the tool can't be asked, or its answer not be understood.
    pub async fn health(
        &self,
        cx: &Context,
        names: &BTreeSet<String>,
    ) -> Result<Vec<PoolHealth>, StoreError> {
        not_cancelled::<StoreKind>(cx)?;
        let what = "can't ask zpool about the pools";
        let bad = |bad| not_understood::<StoreKind>(what, bad);
        let listing = self.ask(cx, args(&read::LIST, []), what).await?;
        if !listing.exit.success() {
            return Err(self.tool.failed(what, &listing));
        }
        let listing = listing
            .whole_stdout()
            .map_err(|error| error.into_error(what, Effect::None))?;
        let mut listed = read::list(listing).map_err(bad)?;
        listed.retain(|pool| names.contains(&pool.name));
        if !listed.is_empty() {
            let wanted = listed.iter().map(|pool| pool.name.as_str());
            let status = self.ask(cx, args(&["status", "-p"], wanted), what).await?;
            let status = status
                .whole_stdout()
                .map_err(|error| error.into_error(what, Effect::None))?;
            read::status(status, &mut listed).map_err(bad)?;
        }
        let of = |name: &String| {
            let known = listed.iter().find(|pool| pool.name == *name);
            known.cloned().unwrap_or_else(|| PoolHealth::not_imported(name))
        };
        Ok(names.iter().map(of).collect())
    }

    /// How one pool is.
    ///
    /// # Errors
    /// As [`health`](Self::health); `PoolUnavailable` when it isn't imported.
    pub async fn one(&self, cx: &Context, name: &str) -> Result<PoolHealth, StoreError> {
        let found = self.health(cx, &BTreeSet::from([name.to_owned()])).await?;
        let found = found.into_iter().find(|pool| pool.state != NOT_IMPORTED);
        found.ok_or_else(|| {
            let hint = "`zpool list` shows the pools that are, `zpool import` those that could be";
            StoreError::new(StoreKind::PoolUnavailable, format!("pool {name} is not imported")).hint(hint)
        })
    }

    /// Starts a scrub. One that runs goes on, and a paused one is resumed: then false.
    ///
    /// # Errors
    /// As [`one`](Self::one); `PoolUnavailable` while it is suspended; when the tool refuses.
    pub async fn scrub(&self, cx: &Context, name: &str) -> Result<bool, StoreError> {
        let pool = self.one(cx, name).await?;
        if pool.state == SUSPENDED {
            // The tool would hang in the kernel until the pool goes on.
            let what = format!("can't scrub pool {name}: it is {SUSPENDED}, its disks can't be written");
            return Err(StoreError::new(StoreKind::PoolUnavailable, what)
                .hint(format!("bring its disks back, then `zpool clear {name}`")));
        }
        let before = pool.scan.map(|scan| (scan.function, scan.state));
        if before == Some((ScanFunction::Scrub, ScanState::Running)) {
            return Ok(false);
        }
        let what = format!("can't scrub pool {name}");
        let output = self
            .ask(cx, args(&["scrub"], [pool.name.as_str()]), &what)
            .await?;
        if !output.exit.success() {
            return Err(self.tool.failed(&what, &output));
        }
        Ok(before != Some((ScanFunction::Scrub, ScanState::Paused)))
    }

    /// Waits until no scrub or resilver of a pool is under way; `tell` hears how far it is.
    ///
    /// # Errors
    /// As [`one`](Self::one); `Cancelled`, and then the scrub goes on.
    pub async fn follow(
        &self,
        cx: &Context,
        name: &str,
        mut tell: impl FnMut(&Scan),
    ) -> Result<PoolHealth, StoreError> {
        loop {
            let pool = self.one(cx, name).await?;
            match &pool.scan {
                Some(scan) if scan.state == ScanState::Running => tell(scan),
                _ => return Ok(pool),
            }
            self.clock.sleep(LOOK_EVERY).await;
        }
    }

    async fn ask(&self, cx: &Context, args: Vec<OsString>, what: &str) -> Result<Output, StoreError> {
        let answer = self.tool.ask_pool(cx, args).await;
        answer.map_err(|error| error.into_error(what, Effect::None))
    }
}
