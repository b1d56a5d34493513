//! The glue to the core: wires a lab's services to the world and calls the operations. Nothing else in the simulator calls
//! the core.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use reseed_core::clock::Clock;
use reseed_core::engine::Engine;
use reseed_core::entropy::SplitMix;
use reseed_core::journal::MemoryJournal;
use reseed_core::names::{RunId, ServiceName, SourceName};
use reseed_core::ops::{self, At, OpReport, RestoreOptions};
use reseed_core::point::Target;
use reseed_core::preseed::{self, ServiceReport};
use reseed_core::retention::{self, sanoid};
use reseed_core::service::{Policy, Service, Verify};
use reseed_core::store::{Delivery, StoreCaps};
use reseed_core::{Context, OffsiteRepo, Replicator, RestoreSource, SnapshotStore, Verifier};

use super::mutants::{self, Mutant};
use super::plan::{Act, LabPlan, ServicePlan, SourceId, Who};
use crate::faults::{Faults, Faulty};
use crate::world::{
    MemOffsite, MemReplicator, MemSource, MemStore, MemVerifier, SimClock, SourcePlace, World,
};

/// A wired lab.
#[derive(Debug)]
pub(super) struct Rig {
    pub(super) world: World,
    pub(super) engine: Engine,
    pub(super) clock: Arc<SimClock>,
    pub(super) faults: Faults,
    pub(super) services: Vec<Service>,
    hourly: Vec<u32>,
}

/// What an operation said of itself.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Preseeds and restores, by the service's place in the lab.
    pub(super) restores: Vec<(usize, ServiceReport)>,
    /// Everything else.
    pub(super) ops: Vec<OpReport>,
    /// Why a restore was refused.
    pub(super) refused: Option<String>,
}

/// The source's name in the lab.
pub(super) fn source_name(id: SourceId) -> SourceName {
    crate::conformance::source_name(id.name())
}

/// The targets of a service in the lab.
pub(super) fn targets(service: usize, plan: &ServicePlan) -> Vec<Target> {
    let target = |dataset| World::target(&format!("tank/s{service}-{dataset}"));
    (0..plan.datasets).map(target).collect()
}

struct Parts {
    store: Arc<dyn SnapshotStore>,
    sources: BTreeMap<SourceId, Arc<dyn RestoreSource>>,
    replicator: Arc<dyn Replicator>,
    repo: Arc<dyn OffsiteRepo>,
    verifier: Arc<dyn Verifier>,
}

impl Parts {
    /// The fakes, with faults around them and a mutant around that.
    fn new(lab: &LabPlan, world: &World, faults: &Faults, mutant: Option<Mutant>) -> Self {
        let files = || Arc::new(world.clone());
        let delivery = if lab.native {
            Delivery::Native
        } else {
            Delivery::Files
        };
        let source = |id: SourceId| -> Arc<dyn RestoreSource> {
            let name = source_name(id);
            let bare: Arc<dyn RestoreSource> = match id {
                SourceId::Local => MemSource::new(world, name, SourcePlace::Local, delivery).shared(),
                SourceId::Replica => MemSource::new(world, name, SourcePlace::Replica, delivery).shared(),
                SourceId::Offsite => Arc::new(MemOffsite::new(world, name, "secret")),
            };
            mutants::source(mutant, Arc::new(Faulty::new(bare, id.name(), faults, files())))
        };
        let caps = StoreCaps {
            atomic_group: true,
            holds: lab.holds,
            native_receive: true,
            set_aside: true,
            checks_reads: false,
        };
        let store = MemStore::with_caps(world, caps).shared();
        let store = Arc::new(Faulty::new(store, "store", faults, files()));
        let replicator = MemReplicator::new(world, source_name(SourceId::Replica)).shared();
        let replicator = Arc::new(Faulty::new(replicator, "replica", faults, files()));
        let repo = MemOffsite::new(world, source_name(SourceId::Offsite), "secret").shared();
        Self {
            store: mutants::store(mutant, store, world),
            sources: SourceId::ALL.into_iter().map(|id| (id, source(id))).collect(),
            replicator: mutants::replicator(mutant, replicator, world),
            repo: Arc::new(Faulty::new(repo, "offsite", faults, files())),
            verifier: mutants::verifier(mutant, Arc::new(MemVerifier::new(world)), world),
        }
    }

    fn service(&self, index: usize, plan: &ServicePlan, mutant: Option<Mutant>) -> Service {
        let mut sources = plan.sources.clone();
        if mutant == Some(Mutant::SkipsEarly) && sources.len() > 1 {
            sources.pop();
        }
        let budget = if mutant == Some(Mutant::IgnoresBudget) {
            plan.budget * 10
        } else {
            plan.budget
        };
        Service {
            name: ServiceName::new(format!("s{index}")).expect("a service's name"),
            targets: targets(index, plan),
            store: Arc::clone(&self.store),
            sources: sources.iter().map(|id| Arc::clone(&self.sources[id])).collect(),
            replicators: vec![Arc::clone(&self.replicator)],
            offsite: vec![Arc::clone(&self.repo)],
            policy: Policy {
                prefer: plan.prefer,
                when_exhausted: plan.when_exhausted,
                verify: Verify::Digest,
                tries: plan.tries,
                budget,
                source_budget: budget / 3,
                probe_budget: Duration::from_secs(30),
                validators: BTreeMap::new(),
            },
        }
    }
}

impl Rig {
    /// Wires a lab to a world. The repository is made unless it is there.
    pub(super) async fn build(lab: &LabPlan, seed: u64, world: World, mutant: Option<Mutant>) -> Self {
        let began = Timestamp::from_second(1_790_000_000).expect("a time in this century");
        let clock = Arc::new(SimClock::new(began));
        let faults = Faults::new(Arc::clone(&clock) as Arc<dyn Clock>);
        let bare = MemOffsite::new(&world, source_name(SourceId::Offsite), "secret");
        let cx = Context::silent(RunId::new("init").expect("a run's id"));
        // It fails when this world is a fork of one that has the repository.
        let _ = bare.init(&cx).await;
        let parts = Parts::new(lab, &world, &faults, mutant);
        let services = lab.services.iter().enumerate();
        let engine = Engine {
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            entropy: Arc::new(SplitMix::seeded(seed)),
            verifier: Arc::clone(&parts.verifier),
            journal: mutants::journal(mutant, Arc::new(MemoryJournal::new())),
            host: "lab".to_owned(),
        };
        Self {
            services: services
                .map(|(index, plan)| parts.service(index, plan, mutant))
                .collect(),
            hourly: lab.services.iter().map(|plan| plan.hourly).collect(),
            world,
            engine,
            clock,
            faults,
        }
    }

    /// Runs one operation of the core.
    pub(super) async fn operate(&self, cx: &Context, act: Act) -> Done {
        let mut done = Done::default();
        let engine = &self.engine;
        match act {
            Act::Preseed { who } => {
                let chosen: Vec<usize> = match who {
                    Who::All => (0..self.services.len()).collect(),
                    Who::One(service) => vec![service],
                };
                let services: Vec<&Service> = chosen.iter().map(|&index| &self.services[index]).collect();
                let reports = preseed::preseed(engine, cx, &services, engine.clock.monotonic()).await;
                done.restores = chosen.into_iter().zip(reports).collect();
            }
            Act::Restore {
                service,
                set_aside,
                from,
            } => {
                let options = RestoreOptions {
                    from: from.map(source_name),
                    at: At::Newest,
                    set_aside,
                };
                match ops::restore(engine, cx, &self.services[service], &options).await {
                    Ok(report) => done.restores.push((service, report)),
                    Err(error) => done.refused = Some(error.to_string()),
                }
            }
            Act::Snapshot { service } => {
                let now = engine.clock.now().to_zoned(TimeZone::UTC);
                let name = ops::snapshot_name(Some(sanoid::Kind::Hourly), &now).expect("a snapshot's name");
                done.ops
                    .push(ops::snapshot(engine, cx, &self.services[service], &name).await);
            }
            Act::Replicate { service } => {
                done.ops = ops::replicate(engine, cx, &self.services[service]).await;
            }
            Act::Backup { service } => done.ops = ops::backup(engine, cx, &self.services[service]).await,
            Act::Adopt { service } => done
                .ops
                .push(ops::adopt(engine, cx, &self.services[service]).await),
            Act::Prune { service } => {
                let policy = retention::Policy::Sanoid(sanoid::Policy {
                    hourly: Some(self.hourly[service]),
                    ..sanoid::Policy::default()
                });
                done.ops
                    .push(ops::prune(engine, cx, &self.services[service], &policy).await);
            }
            _ => {}
        }
        done
    }

    /// Whether the journal has a run that names this point of this source as restored.
    pub(super) fn journal_names(&self, report: &ServiceReport) -> bool {
        let query = reseed_core::journal::Query {
            service: Some(report.service.clone()),
            ..Default::default()
        };
        let runs = self.engine.journal.history(&query).unwrap_or_default();
        let wanted = report.datasets.iter().map(|dataset| &dataset.point);
        let wanted: Vec<_> = wanted.collect();
        runs.iter().any(|run| {
            run.key.run == report.run
                && run.source == report.source
                && run.points.iter().collect::<Vec<_>>() == wanted
        })
    }
}

impl Done {
    /// In one line, for the trace.
    pub(super) fn line(&self) -> String {
        let mut line = String::new();
        for (_, report) in &self.restores {
            let _ = write!(
                line,
                " [{}; {} attempts]",
                report.summary(),
                report.attempts.len()
            );
        }
        for report in &self.ops {
            let _ = write!(line, " [{}]", report.summary());
        }
        if let Some(why) = &self.refused {
            let _ = write!(line, " [refused: {why}]");
        }
        line
    }
}
