//! Drawing a schedule from a seed.

use std::time::Duration;

use reseed_core::entropy::{Entropy, SplitMix};
use reseed_core::error::Common;
use reseed_core::service::{Prefer, WhenExhausted};

use super::plan::{Act, LabPlan, Schedule, ServicePlan, SourceId, Step, Stop, Who};
use crate::faults::{Fault, Op, Rule};

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
        if rng.chance(15) {
            disaster(&rng, rng.below(lab.services.len()), &mut steps);
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

/// Everything fails at once, the service starts without its data, and life goes on: the history that costs people their
/// last good points.
fn disaster(rng: &Rng, service: usize, steps: &mut Vec<Step>) {
    steps.push(Step::plain(Act::Destroy {
        service,
        which: 0b11,
        snapshots: false,
    }));
    let unreachable = Rule::on(Op::SourcePoints, Fault::FailBefore(Common::Unreachable));
    steps.push(Step {
        faults: vec![unreachable],
        ..Step::plain(Act::Preseed {
            who: Who::One(service),
        })
    });
    for _ in 0..=rng.below(2) {
        steps.push(Step::plain(Act::Write {
            service,
            draw: rng.next(),
            make: false,
        }));
        steps.push(Step::plain(Act::Snapshot { service }));
        steps.push(Step::plain(Act::Pass {
            minutes: 61 + u32::try_from(rng.below(300)).unwrap_or(0),
        }));
    }
    for act in [
        Act::Replicate { service },
        Act::Backup { service },
        Act::Prune { service },
    ] {
        if rng.chance(70) {
            steps.push(Step::plain(act));
        }
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
    match rng.below(15) {
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
        12 => Fault::HangIn(
            rng.below(8),
            rng.chance(50).then(|| Duration::from_secs(draw % 5000)),
        ),
        13 => Fault::Slow(Duration::from_secs(draw % 600)),
        _ => Fault::Crash(rng.below(8)),
    }
}
