//! A service as the operations see it: its datasets, where it lives, where it comes back from, and its policy.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names::ServiceName;
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// In which order sources are tried.
    pub prefer: Prefer,
    /// What to do when no source delivered although there may be points.
    pub when_exhausted: WhenExhausted,
    /// How a restored tree is checked.
    pub verify: VerifyLevel,
    /// Tries per source for what is worth a retry.
    pub tries: u32,
    /// Time for the whole walk. Must be inside the unit's `TimeoutStartSec`.
    pub budget: Duration,
    /// Time for one source, all tries together.
    pub source_budget: Duration,
    /// Time for asking one source what it has.
    pub probe_budget: Duration,
    /// The service's own checks.
    pub validators: Vec<Validator>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            prefer: Prefer::Chain,
            when_exhausted: WhenExhausted::StartEmpty,
            verify: VerifyLevel::Digest,
            tries: 3,
            // Five minutes less than the unit's default TimeoutStartSec of 3600 s.
            budget: Duration::from_secs(55 * 60),
            source_budget: Duration::from_secs(20 * 60),
            probe_budget: Duration::from_secs(30),
            validators: Vec::new(),
        }
    }
}

/// In which order sources are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prefer {
    /// As declared.
    Chain,
    /// The one with the newest point first.
    Newest,
}

/// What to do when no source delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenExhausted {
    /// Let the service start without data, and remember that it is unseeded.
    StartEmpty,
    /// Fail, so that the service doesn't start.
    Hold,
}

/// How a restored tree is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerifyLevel {
    /// The source's own checks, and the recorded tree digest.
    Digest,
    /// The source's own checks only.
    Source,
}
