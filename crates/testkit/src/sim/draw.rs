//! Drawing a schedule from a seed: plain data, which can be shrunk, printed and run again.

use std::fmt;
use std::time::Duration;

use reseed_core::entropy::{Entropy, SplitMix};
use reseed_core::error::Common;
use reseed_core::service::{Prefer, WhenExhausted};

use crate::faults::{Fault, Op, Rule};

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

/// Draws numbers.
pub(super) struct Rng(SplitMix);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(SplitMix::seeded(seed))
    }

    pub(super) fn next(&self) -> u64 {
        self.0.next_u64()
    }

    pub(super) fn below(&self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.next() % end).unwrap_or(0)
    }

    pub(super) fn chance(&self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    fn pick<T: Clone>(&self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }
}

impl Schedule {
    /// The schedule of a seed.
    pub fn draw(seed: u64) -> Self {
        let rng = Rng::new(seed);
        let lab = LabPlan {
            services: (0..=rng.below(3)).map(|_| service(&rng)).collect(),
            native: rng.chance(50),
            holds: rng.chance(80),
        };
        let mut steps = Vec::new();
        for index in 0..lab.services.len() {
            if rng.chance(90) {
                protect(&rng, index, &mut steps);
            }
        }
        for _ in 0..3 + rng.below(8) {
            steps.push(step(&rng, &lab));
        }
        // In the end everything is well again, and then whatever can be put back must be.
        for act in [
            Act::Pool { up: true },
            Act::Space { bytes: None },
            Act::Line {
                place: SourceId::Replica,
                up: true,
            },
            Act::Line {
                place: SourceId::Offsite,
                up: true,
            },
            Act::Lock { on: false },
            Act::Preseed { who: Who::All },
        ] {
            steps.push(Step::plain(act));
        }
        Self { seed, lab, steps }
    }
}

impl Step {
    fn plain(act: Act) -> Self {
        Self {
            act,
            faults: Vec::new(),
            stop: None,
        }
    }
}

fn service(rng: &Rng) -> ServicePlan {
    let mut sources = SourceId::ALL.to_vec();
    if rng.chance(40) {
        sources.rotate_left(rng.below(3));
    }
    if rng.chance(20) {
        sources.swap(0, 1);
    }
    if rng.chance(25) {
        sources.remove(rng.below(3));
    }
    ServicePlan {
        datasets: 1 + rng.below(2),
        sources,
        prefer: rng.pick(&[Prefer::Chain, Prefer::Chain, Prefer::Newest]),
        when_exhausted: rng.pick(&[
            WhenExhausted::StartEmpty,
            WhenExhausted::StartEmpty,
            WhenExhausted::Hold,
        ]),
        tries: 1 + u32::try_from(rng.below(3)).unwrap_or(0),
        budget: Duration::from_secs(60 * (5 + rng.next() % 50)),
        hourly: u32::try_from(rng.below(3)).unwrap_or(0),
    }
}

/// What an operator's timers do.
fn protect(rng: &Rng, service: usize, steps: &mut Vec<Step>) {
    for round in 0..=rng.below(2) {
        steps.push(Step::plain(Act::Write {
            service,
            draw: rng.next(),
            make: round == 0,
        }));
        steps.push(Step::plain(Act::Snapshot { service }));
        if rng.chance(75) {
            steps.push(Step::plain(Act::Replicate { service }));
        }
        if rng.chance(75) {
            steps.push(Step::plain(Act::Backup { service }));
        }
        steps.push(Step::plain(Act::Pass {
            minutes: 61 + u32::try_from(rng.below(300)).unwrap_or(0),
        }));
    }
}

fn step(rng: &Rng, lab: &LabPlan) -> Step {
    let service = rng.below(lab.services.len());
    let draw = rng.next();
    let place = rng.pick(&SourceId::ALL);
    let far = rng.pick(&[SourceId::Replica, SourceId::Offsite]);
    let act = match rng.below(100) {
        0..4 => Act::Write {
            service,
            draw,
            make: rng.chance(20),
        },
        4..12 => Act::Snapshot { service },
        12..18 => Act::Replicate { service },
        18..24 => Act::Backup { service },
        24..30 => Act::Prune { service },
        30..32 => Act::Adopt { service },
        32..36 => Act::Restore {
            service,
            set_aside: rng.chance(70),
            from: rng.chance(50).then_some(place),
        },
        36..54 => Act::Destroy {
            service,
            which: rng.pick(&[0b11, 0b11, 0b11, 0b01, 0b10]),
            snapshots: rng.chance(60),
        },
        54..57 => Act::Wipe { service },
        57..59 => Act::LoseReplica,
        59..66 => Act::Damage {
            place,
            draw,
            told: rng.chance(50),
        },
        66..67 => Act::LoseBlob { draw },
        67..70 => Act::Pool { up: rng.chance(60) },
        70..72 => Act::Space {
            bytes: rng.chance(60).then_some(draw % 200),
        },
        72..76 => Act::Line {
            place: far,
            up: rng.chance(30),
        },
        76..78 => Act::Lock { on: rng.chance(60) },
        78..81 => Act::Pass {
            minutes: 61 + u32::try_from(rng.below(3000)).unwrap_or(0),
        },
        81..82 => Act::Jump {
            seconds: i64::try_from(draw % 20_000).unwrap_or(0) - 10_000,
        },
        _ => Act::Preseed {
            who: if rng.chance(50) {
                Who::All
            } else {
                Who::One(service)
            },
        },
    };
    let mut step = Step::plain(act);
    if act.is_ours() {
        let faulty = rng.chance(50);
        if faulty {
            step.faults = (0..=rng.below(3)).map(|_| rule(rng, act)).collect();
        }
        step.stop = match rng.below(100) {
            0..22 => Some(Stop::Crash(rng.below(60))),
            22..28 => Some(Stop::Cancel(rng.below(60))),
            _ => None,
        };
    }
    step
}

fn rule(rng: &Rng, act: Act) -> Rule {
    let restores = matches!(act, Act::Preseed { .. } | Act::Restore { .. });
    let (who, op) = if rng.chance(if restores { 70 } else { 20 }) {
        let who = rng.pick(&SourceId::ALL).name();
        (
            who,
            rng.pick(&[
                Op::SourcePoints,
                Op::SourcePlan,
                Op::SourceExecute,
                Op::SourceExecute,
            ]),
        )
    } else {
        rng.pick(&[
            ("store", Op::StoreInspect),
            ("store", Op::StoreList),
            ("store", Op::StoreCreate),
            ("store", Op::StoreHold),
            ("store", Op::StorePrune),
            ("store", Op::StoreStage),
            ("store", Op::StoreSettle),
            ("store", Op::StoreSettle),
            ("replica", Op::ReplicaPlan),
            ("replica", Op::ReplicaExecute),
            ("offsite", Op::RepoPoints),
            ("offsite", Op::RepoBackup),
        ])
    };
    let fault = fault(rng, op, restores);
    let rule = Rule::on(op, fault)
        .of(who)
        .from_nth(1 + u32::try_from(rng.below(3)).unwrap_or(0));
    if rng.chance(50) {
        rule.times(1 + u32::try_from(rng.below(2)).unwrap_or(0))
    } else {
        rule
    }
}

fn fault(rng: &Rng, op: Op, restores: bool) -> Fault {
    let draw = rng.next();
    let kind = rng.pick(&[
        Common::Unreachable,
        Common::TimedOut,
        Common::Io,
        Common::Corrupt,
        Common::NoSpace,
        Common::ReadOnly,
        Common::Busy,
        Common::PermissionDenied,
        Common::NotFound,
        Common::StalePlan,
    ]);
    match rng.below(13) {
        0..3 => Fault::FailBefore(kind),
        3 => Fault::FailAfter(kind),
        4 => Fault::Denied,
        5 => Fault::Locked,
        6 => Fault::Hang(None),
        7 => Fault::Hang(Some(Duration::from_secs(draw % 5000))),
        8 => Fault::Cut(draw % 120),
        9 => Fault::NoSpace(draw % 120),
        10 if op == Op::SourceExecute => Fault::Flip(draw),
        // An old answer about markers would make any guard fail, so only those who check again are told one.
        10 if op != Op::StoreInspect || restores => Fault::Stale,
        11 => Fault::Stuck,
        _ => Fault::Crash(rng.below(8)),
    }
}
