//! Runs one schedule, and checks after every step.

use reseed_core::Context;
use reseed_core::clock::Clock as _;
use reseed_core::names::RunId;
use reseed_core::preseed::Outcome;

use super::check::{Invariant, Ledger, Seen, Violation, converged};
use super::draw::Rng;
use super::drive::{Done, Rig, source_name, targets};
use super::mutants::Mutant;
use super::plan::{Act, Schedule, SourceId, Step, Stop};
use crate::conformance::cancelled_after;
use crate::faults::crash_after;
use crate::world::{Link, Node, NodeKind, PointPlace, RepoFault, Tree, World};

/// How one schedule went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The first invariant that did not hold.
    pub violation: Option<(Invariant, String)>,
    /// Preseeds and restores that put data back.
    pub restored: u64,
    /// What happened, a line a step; only when it was asked for.
    pub trace: Vec<String>,
}

/// Runs a schedule on a runtime of its own, in paused time.
///
/// # Panics
/// When no runtime can be made.
pub fn run_schedule(schedule: &Schedule, mutant: Option<Mutant>, trace: bool) -> Verdict {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(async {
            let rig = Rig::build(&schedule.lab, schedule.seed, World::new(), mutant).await;
            let mut run = Run {
                schedule,
                mutant,
                rig,
                ledger: Ledger::default(),
                verdict: Verdict::default(),
                trace,
                runs: 0,
            };
            run.all().await;
            run.verdict
        }),
        Err(error) => panic!("no runtime: {error}"),
    }
}

/// Longer than any budget of any operation, so that what waits for ever is found instead of waited for.
const FOREVER: std::time::Duration = std::time::Duration::from_secs(100 * 24 * 3600);

struct Run<'a> {
    schedule: &'a Schedule,
    mutant: Option<Mutant>,
    rig: Rig,
    ledger: Ledger,
    verdict: Verdict,
    trace: bool,
    runs: u32,
}

impl Run<'_> {
    async fn all(&mut self) {
        let schedule = self.schedule;
        for (index, step) in schedule.steps.iter().enumerate() {
            // No two steps happen in one second, or snapshots would share their name.
            self.rig.clock.sleep(std::time::Duration::from_secs(1)).await;
            self.say(|| format!("{index:2} {step}"));
            let result = if step.act.is_ours() {
                self.ours(step).await
            } else {
                self.theirs(step.act).await;
                Ok(())
            };
            if let Err((invariant, what)) = result {
                self.say(|| format!("   VIOLATED: {invariant}: {what}"));
                self.verdict.violation = Some((invariant, format!("step {index}: {what}")));
                return;
            }
        }
    }

    fn say(&mut self, line: impl FnOnce() -> String) {
        if self.trace {
            self.verdict.trace.push(line());
        }
    }

    fn context(&mut self) -> Context {
        self.runs += 1;
        let run = RunId::new(format!("sim-{:06}", self.runs)).expect("a run's id");
        Context::silent(run)
    }

    /// An operation of the core.
    async fn ours(&mut self, step: &Step) -> Result<(), Violation> {
        let restores = matches!(step.act, Act::Preseed { .. });
        let twin = (restores && step.stop.is_some() && step.faults.is_empty()).then(|| self.rig.world.fork());
        let guards: Vec<_> = step
            .faults
            .iter()
            .map(|rule| self.rig.faults.add(rule.clone()))
            .collect();
        let ended = self.once(step.act, step.stop, guards.is_empty()).await?;
        drop(guards);
        if ended || !restores {
            return Ok(());
        }
        // The same command again, and nothing goes wrong: C4.
        self.once(step.act, None, true).await?;
        if !self.rig.world.pool_is_well("tank") {
            // Where space runs out something does go wrong, and what an earlier try had freed or taken decides where.
            return Ok(());
        }
        if let Some(world) = twin {
            let twin = Rig::build(&self.schedule.lab, self.schedule.seed, world, self.mutant).await;
            let cx = self.context();
            twin.operate(&cx, step.act).await;
            converged(&self.rig.world.census(), &twin.world.census())?;
        }
        let settled = self.rig.world.census();
        self.once(step.act, None, true).await?;
        converged(&self.rig.world.census(), &settled)
    }

    /// Runs an operation once and checks. False when it was ended from outside.
    async fn once(&mut self, act: Act, stop: Option<Stop>, no_faults: bool) -> Result<bool, Violation> {
        let before = self.rig.world.census();
        let cx = self.context();
        let call = self.rig.operate(&cx, act);
        let faults = &self.rig.faults;
        let run = async {
            match stop {
                None => faults.or_crash(call).await.ok(),
                Some(Stop::Crash(polls)) => {
                    let ended = faults.or_crash(crash_after(polls, call)).await;
                    ended.ok().and_then(Result::ok)
                }
                Some(Stop::Cancel(polls)) => faults.or_crash(cancelled_after(&cx, polls, call)).await.ok(),
            }
        };
        let patience = self.rig.clock.sleep(FOREVER);
        let done = tokio::select! {
            biased;
            done = run => done,
            () = patience => {
                let struck = faults.take_struck();
                return Err((Invariant::Budget, format!("{act:?} never ended after {struck:?}")));
            }
        };
        let after = self.rig.world.census();
        self.ledger.learn(&self.rig.world, &self.schedule.lab);
        let struck = self.rig.faults.take_struck();
        self.say(|| {
            let words = done.as_ref().map_or_else(|| " crashed".to_owned(), Done::line);
            format!("   {:?}{words} {struck:?}", act)
        });
        let outcomes = done.iter().flat_map(|done| &done.restores);
        let restored = outcomes
            .filter(|(_, report)| report.outcome == Outcome::Restored)
            .count();
        self.verdict.restored += u64::try_from(restored).unwrap_or(0);
        let seen = Seen {
            rig: &self.rig,
            lab: &self.schedule.lab,
            ledger: &self.ledger,
            act,
            before: &before,
            after: &after,
            done: done.as_ref(),
            quiet: no_faults && stop.is_none(),
        };
        seen.check()?;
        Ok(done.is_some() && !cx.cancel.is_cancelled())
    }

    /// What others do.
    async fn theirs(&mut self, act: Act) {
        let world = self.rig.world.clone();
        let lab = &self.schedule.lab;
        match act {
            Act::Write { service, draw, make } => {
                for (index, target) in targets(service, &lab.services[service]).iter().enumerate() {
                    if make {
                        world.make(target);
                    }
                    let rng = Rng::new(draw ^ u64::try_from(index).unwrap_or(0));
                    world.edit(&target.dataset, |tree| write(tree, &rng));
                }
            }
            Act::Destroy {
                service,
                which,
                snapshots,
            } => {
                for (bit, target) in targets(service, &lab.services[service]).iter().enumerate() {
                    if which & (1 << bit) != 0 {
                        world.destroy(&target.dataset, snapshots);
                    }
                }
            }
            Act::Wipe { service } => {
                for target in targets(service, &lab.services[service]) {
                    world.edit(&target.dataset, |tree| *tree = Tree::empty());
                }
            }
            Act::LoseReplica => world.lose_replica(&source_name(SourceId::Replica)),
            Act::Damage { place, draw, told } => damage(&world, place, draw, told),
            Act::LoseBlob { draw } => {
                world.break_repo(&source_name(SourceId::Offsite), RepoFault::Lose(draw));
            }
            Act::Pool { up } => world.pool_down("tank", (!up).then_some("suspended")),
            Act::Space { bytes } => world.pool_free("tank", bytes),
            Act::Line { place, up } => {
                let link = if up { Link::Up } else { Link::Down };
                match place {
                    SourceId::Offsite => {
                        world.break_repo(&source_name(place), RepoFault::Link(link));
                    }
                    SourceId::Local | SourceId::Replica => world.replica_link(&source_name(place), link),
                }
            }
            Act::Lock { on } => {
                world.break_repo(&source_name(SourceId::Offsite), RepoFault::Locked(on));
            }
            Act::Pass { minutes } => {
                let time = std::time::Duration::from_secs(60 * u64::from(minutes));
                self.rig.clock.sleep(time).await;
            }
            Act::Jump { seconds } => self.rig.clock.jump(seconds),
            _ => {}
        }
    }
}

/// A few changes to a tree, as a service makes them.
fn write(tree: &mut Tree, rng: &Rng) {
    let file = |rng: &Rng| {
        let word = rng.next().to_le_bytes();
        let bytes = word.repeat(1 + rng.below(6));
        Node::new(NodeKind::File {
            bytes: bytes.into(),
            inode: 0,
        })
    };
    tree.put("data".as_ref(), file(rng));
    for _ in 0..1 + rng.below(4) {
        let names = ["a", "b", "dir/c", "dir/deep/d", ".hidden", "new\nline"];
        let name = names[rng.below(names.len())];
        match rng.below(7) {
            0 => drop(tree.remove(name.as_ref()).then_some(())),
            1 => tree.put(name.as_ref(), Node::new(NodeKind::Symlink("data".into()))),
            2 => tree.put(name.as_ref(), Node::new(NodeKind::Dir)),
            3 => drop(tree.hard_link("data".as_ref(), name.as_ref()).then_some(())),
            _ => tree.put(name.as_ref(), file(rng)),
        }
    }
}

fn damage(world: &World, place: SourceId, draw: u64, told: bool) {
    if place == SourceId::Offsite {
        world.break_repo(&source_name(place), RepoFault::Flip(draw));
        return;
    }
    let census = world.census();
    let guids: Vec<u64> = census
        .points
        .keys()
        .filter_map(|point| match (point, place) {
            (PointPlace::Local(guid), SourceId::Local)
            | (PointPlace::Replica(_, guid), SourceId::Replica) => Some(*guid),
            _ => None,
        })
        .collect();
    if guids.is_empty() {
        return;
    }
    let guid = reseed_core::names::Guid(guids[Rng::new(draw).below(guids.len())]);
    match place {
        SourceId::Local => world.damage_snapshot(guid, draw, told),
        _ => world.damage_replica(&source_name(place), guid, draw, told),
    };
}
