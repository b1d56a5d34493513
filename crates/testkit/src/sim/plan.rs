//! A schedule as plain data: it can be shrunk, printed and run again.

use std::fmt;
use std::time::Duration;

use reseed_core::service::{Prefer, WhenExhausted};

use crate::faults::Rule;

/// A lab and what happens in it.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// What it was drawn from.
    pub seed: u64,
    /// Who is there.
    pub lab: LabPlan,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// Who is there.
#[derive(Debug, Clone)]
pub struct LabPlan {
    /// The services.
    pub services: Vec<ServicePlan>,
    /// The local store and the replica deliver natively.
    pub native: bool,
    /// The store keeps holds.
    pub holds: bool,
}

/// A service.
#[derive(Debug, Clone)]
pub struct ServicePlan {
    /// How many datasets it has.
    pub datasets: usize,
    /// Its chain.
    pub sources: Vec<SourceId>,
    /// In which order sources are tried.
    pub prefer: Prefer,
    /// What happens at the chain's end.
    pub when_exhausted: WhenExhausted,
    /// Tries per source.
    pub tries: u32,
    /// Time for a preseed.
    pub budget: Duration,
    /// How many hourly snapshots pruning leaves.
    pub hourly: u32,
}

/// One of the places that recovery points come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceId {
    /// The store itself.
    Local,
    /// The replica.
    Replica,
    /// The repository.
    Offsite,
}

impl SourceId {
    /// All of them, in the default order.
    pub const ALL: [Self; 3] = [Self::Local, Self::Replica, Self::Offsite];

    /// What it is called in the lab.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Replica => "replica",
            Self::Offsite => "offsite",
        }
    }
}

/// One step.
#[derive(Debug, Clone)]
pub struct Step {
    /// What is done.
    pub act: Act,
    /// What goes wrong meanwhile.
    pub faults: Vec<Rule>,
    /// How it is ended from outside.
    pub stop: Option<Stop>,
}

/// How a run is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It crashes at this await point.
    Crash(usize),
    /// It is cancelled there.
    Cancel(usize),
}

/// Which services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// All of them.
    All,
    /// This one.
    One(usize),
}

/// What is done. Services are given by their place in the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are services, draws and switches")]
pub enum Act {
    /// The service writes; its datasets are made when they are not there and `make` says so.
    Write { service: usize, draw: u64, make: bool },
    /// `reseed snapshot`.
    Snapshot { service: usize },
    /// `reseed replicate`.
    Replicate { service: usize },
    /// `reseed backup`.
    Backup { service: usize },
    /// `reseed prune`.
    Prune { service: usize },
    /// `reseed adopt`.
    Adopt { service: usize },
    /// `reseed preseed`.
    Preseed { who: Who },
    /// `reseed restore`, in place.
    Restore {
        service: usize,
        set_aside: bool,
        from: Option<SourceId>,
    },
    /// Datasets are destroyed (a bit each), with their snapshots or without.
    Destroy {
        service: usize,
        which: u8,
        snapshots: bool,
    },
    /// All files of a service are deleted.
    Wipe { service: usize },
    /// The replica's disk dies.
    LoseReplica,
    /// A bit of some stored point is flipped; `told`: so that the place's own checks will see it.
    Damage { place: SourceId, draw: u64, told: bool },
    /// A stored object is gone.
    LoseBlob { draw: u64 },
    /// The pool goes away, or comes back.
    Pool { up: bool },
    /// The pool has so many bytes left; none lifts the limit.
    Space { bytes: Option<u64> },
    /// The line to the replica or the repository.
    Line { place: SourceId, up: bool },
    /// Another program locks the repository, or unlocks it.
    Lock { on: bool },
    /// Time passes.
    Pass { minutes: u32 },
    /// The wall clock jumps.
    Jump { seconds: i64 },
}

impl Act {
    /// Whether the core does it.
    pub fn is_ours(self) -> bool {
        matches!(
            self,
            Self::Snapshot { .. }
                | Self::Replicate { .. }
                | Self::Backup { .. }
                | Self::Prune { .. }
                | Self::Adopt { .. }
                | Self::Preseed { .. }
                | Self::Restore { .. }
        )
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  native {}, holds {}", self.lab.native, self.lab.holds)?;
        for (index, service) in self.lab.services.iter().enumerate() {
            writeln!(f, "  service {index}: {service:?}")?;
        }
        for (index, step) in self.steps.iter().enumerate() {
            writeln!(f, "  {index:2} {step}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.act)?;
        for rule in &self.faults {
            write!(f, " with {rule}")?;
        }
        match self.stop {
            Some(stop) => write!(f, " ended by {stop:?}"),
            None => Ok(()),
        }
    }
}
