//! The replicator's lab, with `zfs` and `zpool` run by a user without privileges at both ends: exactly what `doctor` says that it
//! needs is granted. What prepares and looks (pools, live data, snapshots) stays root's.

use std::sync::Arc;

use async_trait::async_trait;
use reseed_backend_zfs::zfs::delegation::{Role, Trial, Who};
use reseed_backend_zfs::zfs::{Location, Mapping, NativeReplicator, NativeStore};
use reseed_core::exec::{Command, ExecError, Output, PipeOutput, Runner, Streaming, SystemRunner};
use reseed_core::names::DatasetName;
use reseed_core::point::Target;
use reseed_core::{Replicator, SnapshotStore};
use reseed_testkit::conformance::context;
use reseed_testkit::conformance::replicate::{Copied, ReplicaLab};
use reseed_testkit::files::Files;
use tokio_util::sync::CancellationToken;

use crate::lab::{name, run, sure};
use crate::replica_lab::Replica;

pub(crate) const USER: &str = "reseedlab";

pub(crate) fn who() -> Who {
    Who {
        user: USER.to_owned(),
        groups: vec![USER.to_owned()],
    }
}

/// Makes the user.
pub(crate) fn user() {
    // Each test has a process, and all of them one machine.
    let _ = run(["useradd", "--system", "--create-home", "--shell", "/bin/sh", USER]);
    sure(["id", USER]);
    // As udev's rule has it everywhere else: who may do what is the kernel's to say.
    sure(["chmod", "666", "/dev/zfs"]);
}

/// Does what the audit says, and asks again.
pub(crate) async fn heal(trial: &Trial, role: Role, dataset: &DatasetName) {
    let cx = context("heal");
    let found = trial.audit(&cx, role, dataset, &who()).await.unwrap();
    assert!(!found.is_fine());
    for command in &found.commands {
        sure(["sh", "-c", command]);
    }
    let found = trial.audit(&cx, role, dataset, &who()).await.unwrap();
    assert!(found.is_fine(), "{found:?}");
}

/// Runs everything as the user.
#[derive(Debug, Default)]
pub(crate) struct AsUser(SystemRunner);

impl AsUser {
    /// The same command, begun by a program that gives up what root has and becomes it.
    fn command(command: &Command) -> Command {
        let mut out = Command::new("setpriv")
            .args([
                format!("--reuid={USER}"),
                format!("--regid={USER}"),
                "--clear-groups".to_owned(),
                "--no-new-privs".to_owned(),
            ])
            .arg(command.program())
            .args(command.arguments())
            .stdin(command.input().clone());
        if let Some(limit) = command.limit() {
            out = out.time_limit(limit);
        }
        if let Some(listener) = command.listener() {
            out = out.heard_by(listener.clone());
        }
        out
    }
}

#[async_trait]
impl Runner for AsUser {
    async fn run(&self, command: &Command, cancel: &CancellationToken) -> Result<Output, ExecError> {
        self.0.run(&Self::command(command), cancel).await
    }
    async fn pipe(&self, stages: &[Command], cancel: &CancellationToken) -> Result<PipeOutput, ExecError> {
        let stages: Vec<Command> = stages.iter().map(Self::command).collect();
        self.0.pipe(&stages, cancel).await
    }
    async fn stream(&self, command: &Command, cancel: &CancellationToken) -> Result<Streaming, ExecError> {
        self.0.stream(&Self::command(command), cancel).await
    }
}

/// A store and its replica, and a user who may replicate the one to the other.
pub(crate) struct Delegated {
    pub(crate) lab: Replica,
    pub(crate) replicator: NativeReplicator,
}

impl Delegated {
    pub(crate) async fn new() -> Self {
        let lab = Replica::new();
        user();
        let trial = Trial::new(Arc::new(SystemRunner::new()));
        let below = |pool: &str| DatasetName::new(format!("{pool}/svc")).unwrap();
        let (from, to) = (below(&lab.pool.pool), below(&lab.back.pool));
        heal(&trial, Role::Send, &from).await;
        heal(&trial, Role::Receive, &to).await;
        let places = lab.pool.store.places();
        let store = NativeStore::new(name("local"), Arc::new(AsUser::default()), places);
        let replicator = NativeReplicator::new(name("second"), &store, Location::Local, Mapping::below(to));
        let replicator = replicator.of_host("lab");
        Self { lab, replicator }
    }
}

#[async_trait]
impl ReplicaLab for Delegated {
    fn store(&self) -> Arc<dyn SnapshotStore> {
        self.lab.store()
    }
    fn replicator(&self) -> Arc<dyn Replicator> {
        Arc::new(self.replicator.clone())
    }
    fn of_host(&self, host: &str) -> Arc<dyn Replicator> {
        Arc::new(self.replicator.clone().of_host(host))
    }
    fn files(&self) -> &dyn Files {
        self.lab.files()
    }
    fn target(&self, name: &str) -> Target {
        self.lab.target(name)
    }
    fn interruptions(&self) -> Vec<usize> {
        vec![2, 5, 11]
    }
    async fn copies(&self, target: &Target) -> Vec<Copied> {
        self.lab.copies(target).await
    }
    async fn diverge(&self, target: &Target) {
        self.lab.diverge(target).await;
    }
    fn set_reachable(&self, reachable: bool) {
        self.lab.set_reachable(reachable);
    }
}
