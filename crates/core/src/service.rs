//! A service as the operations see it: its datasets, where it lives, where it comes back from, and its policy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use crate::config::{Prefer, Verify, WhenExhausted};

use crate::names::{DatasetName, ServiceName};
use crate::offsite::OffsiteRepo;
use crate::point::Target;
use crate::replicate::Replicator;
use crate::source::RestoreSource;
use crate::store::SnapshotStore;
use crate::verify::Validator;

/// A declared service, wired to its backends.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Its datasets. They are snapshotted and restored together.
    pub targets: Vec<Target>,
    /// Where its live data is.
    pub store: Arc<dyn SnapshotStore>,
    /// Where it comes back from, in the order of the chain.
    pub sources: Vec<Arc<dyn RestoreSource>>,
    /// Where its snapshots are sent.
    pub replicators: Vec<Arc<dyn Replicator>>,
    /// Where it is backed up to.
    pub offsite: Vec<Arc<dyn OffsiteRepo>>,
    /// What it wants.
    pub policy: Policy,
}

/// What a service wants of a preseed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// In which order sources are tried.
    pub prefer: Prefer,
    /// What to do when no source delivered although there may be points.
    pub when_exhausted: WhenExhausted,
    /// How a restored tree is checked.
    pub verify: Verify,
    /// Tries per source for what is worth a retry.
    pub tries: u32,
    /// Time for the whole walk. Must be inside the unit's `TimeoutStartSec`.
    pub budget: Duration,
    /// Time for one source, all tries together.
    pub source_budget: Duration,
    /// Time for asking one source what it has.
    pub probe_budget: Duration,
    /// The service's own checks, by dataset.
    pub validators: BTreeMap<DatasetName, Vec<Validator>>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            prefer: Prefer::Chain,
            when_exhausted: WhenExhausted::StartEmpty,
            verify: Verify::Digest,
            tries: 3,
            // Five minutes less than the unit's default TimeoutStartSec of 3600 s.
            budget: Duration::from_secs(55 * 60),
            source_budget: Duration::from_secs(20 * 60),
            probe_budget: Duration::from_secs(30),
            validators: BTreeMap::new(),
        }
    }
}
