//! Files out of a snapshot that is on another host: all of it is fetched, what is wanted is copied, nothing stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use reseed_backend_zfs::zfs::{NativeStore, ReplicaSource, SnapshotFiles};
use reseed_core::clock::SystemClock;
use reseed_core::error::SourceKind;
use reseed_core::exec::{Runner, SystemRunner};
use reseed_core::names::ServiceName;
use reseed_core::point::{RecoveryPoint, Target};
use reseed_core::preseed::{Outcome, preseed};
use reseed_core::service::{Policy, Service};
use reseed_core::source::{RestorePlan, RestoreRequest, Restored, Scope};
use reseed_core::store::{StageState, Staging};
use reseed_core::{Replicator as _, RestoreSource, SnapshotStore as _};
use reseed_testkit::conformance::{block_on, context};
use reseed_testkit::files::Files as _;

use crate::chain::{Meddler, engine, noise};
use crate::lab::{name, run, sure};
use crate::source_lab::snapshot;
use crate::ssh_lab::Pair;

/// A live dataset whose two snapshots are on the other host.
struct Far {
    lab: Pair,
    target: Target,
}

impl Far {
    async fn new() -> Self {
        let lab = Pair::new();
        sure(["zfs", "create", lab.pool.target("app").dataset.as_str()]);
        Self::over(lab).await
    }

    async fn over(lab: Pair) -> Self {
        let target = lab.pool.target("app");
        lab.pool
            .files
            .write(&target.mountpoint.join("noise"), &noise(3_000_000));
        lab.pool
            .files
            .write(&target.mountpoint.join("dir/wanted"), b"then");
        snapshot(&lab.pool, &target, "one", 1, true).await;
        lab.pool
            .files
            .write(&target.mountpoint.join("dir/wanted"), b"now");
        snapshot(&lab.pool, &target, "two", 2, true).await;
        let (push, cx) = (lab.push(), context("push"));
        let plan = push.plan(&cx, std::slice::from_ref(&target)).await.unwrap();
        assert_eq!(push.execute(&cx, &plan).await.unwrap().failed, []);
        Self { lab, target }
    }

    fn source(&self, runner: Arc<dyn Runner>) -> SnapshotFiles {
        let store = NativeStore::new(name("local"), runner, self.lab.pool.store.places());
        let there = self.lab.host.location();
        let replica = ReplicaSource::new(name("nas"), &store, there, self.lab.mapping());
        SnapshotFiles::of_replica(replica, Arc::new(SystemClock::new()))
    }

    async fn point(&self, called: &str) -> RecoveryPoint {
        let source = self.source(Arc::new(SystemRunner::new()));
        let points = source.points(&context("points"), &self.target).await.unwrap();
        let wanted = |point: &RecoveryPoint| {
            point
                .snapshot
                .as_ref()
                .is_some_and(|name| name.as_str() == called)
        };
        points.into_iter().find(wanted).unwrap()
    }

    fn dir(&self, leaf: &str) -> PathBuf {
        let into = self.lab.pool.root.join(leaf);
        std::fs::create_dir_all(&into).unwrap();
        into
    }

    async fn plan(&self, point: &str, path: &str) -> RestorePlan {
        let request = RestoreRequest {
            target: self.target.clone(),
            point: self.point(point).await,
            scope: Scope::Path(path.into()),
        };
        let source = self.source(Arc::new(SystemRunner::new()));
        source.plan(&context("plan"), &request).await.unwrap()
    }

    async fn copy(
        &self,
        plan: &RestorePlan,
        into: &Path,
        runner: Arc<dyn Runner>,
    ) -> Result<Restored, reseed_core::error::SourceError> {
        let staging = Staging {
            target: self.target.clone(),
            locator: into.display().to_string(),
            path: into.to_owned(),
            state: StageState::Partial,
        };
        self.source(runner)
            .execute(&context("copy"), plan, &staging)
            .await
    }

    fn fetched(&self) -> String {
        format!("{}/svc/.reseed-files:app", self.lab.pool.pool)
    }

    fn nothing_is_left(&self) {
        assert!(!run(["zfs", "list", &self.fetched()]).exit.success());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(".reseed-files"), "{mounts}");
    }

    /// Everything of the live dataset, and of its replica, that a restore could have touched.
    fn state(&self) -> String {
        let of = |dataset: &str| {
            let words = [
                "zfs",
                "list",
                "-Hpr",
                "-t",
                "all",
                "-o",
                "name,guid,mounted,userrefs",
                dataset,
            ];
            sure(words)
        };
        format!(
            "{}\n{}",
            of(self.target.dataset.as_str()),
            of(&self.lab.replica(&self.target))
        )
    }
}

fn system() -> Arc<dyn Runner> {
    Arc::new(SystemRunner::new())
}

#[test]
fn one_path_comes_back_from_another_host_and_nothing_else_changes() {
    block_on(async {
        let far = Far::new().await;
        let before = far.state();
        let plan = far.plan("one", "dir/wanted").await;
        assert!(plan.bytes.unwrap() > 3_000_000, "{plan:#?}");
        assert!(plan.steps[0].contains("all of it"), "{plan:#?}");
        far.nothing_is_left();
        let into = far.dir("into");
        let restored = far.copy(&plan, &into, system()).await.unwrap();
        assert_eq!((restored.files, &restored.warnings), (1, &Vec::new()));
        assert_eq!(std::fs::read(into.join("dir/wanted")).unwrap(), b"then");
        assert!(!into.join("noise").exists());
        far.nothing_is_left();

        // A path that isn't in it: what came over the wire needn't come again.
        let strange = far.plan("one", "dir/other").await;
        let error = far
            .copy(&strange, &far.dir("other"), system())
            .await
            .map(drop)
            .unwrap_err();
        assert_eq!(error.kind(), SourceKind::NothingRestored, "{error}");
        assert!(
            error.what_to_do().unwrap().contains(".reseed-files:app"),
            "{error}"
        );
        let plan = far.plan("one", "dir").await;
        assert_eq!(plan.bytes, Some(0), "{plan:#?}");
        // Another snapshot isn't that one.
        let other = far.plan("two", "dir/wanted").await;
        assert!(other.bytes.unwrap() > 3_000_000, "{other:#?}");
        let into = far.dir("again");
        far.copy(&other, &into, system()).await.unwrap();
        assert_eq!(std::fs::read(into.join("dir/wanted")).unwrap(), b"now");
        far.nothing_is_left();
        assert_eq!(far.state(), before);
    });
}

#[test]
fn what_a_killed_run_left_is_gone_on_with_or_removed_and_only_what_is_ours() {
    block_on(async {
        let far = Far::new().await;
        let before = far.state();
        let cut = |bytes| -> Arc<dyn Runner> { Arc::new(Meddler::cutting(vec![bytes])) };
        let plan = far.plan("one", "dir/wanted").await;
        far.copy(&plan, &far.dir("cut"), cut(2_000_000))
            .await
            .map(drop)
            .unwrap_err();
        let again = far.plan("one", "dir/wanted").await;
        let (all, rest) = (plan.bytes.unwrap(), again.bytes.unwrap());
        assert!(rest > 0 && rest < all, "{rest} of {all}");
        let into = far.dir("rest");
        far.copy(&again, &into, system()).await.unwrap();
        assert_eq!(std::fs::read(into.join("dir/wanted")).unwrap(), b"then");
        far.nothing_is_left();

        // Nobody comes back for it: the next preseed has data, and removes it.
        far.copy(&plan, &far.dir("cut"), cut(2_000_000))
            .await
            .map(drop)
            .unwrap_err();
        let one = std::slice::from_ref(&far.target);
        let store = &far.lab.pool.store;
        let now = store.inspect(&context("look"), one).await.unwrap().remove(0);
        assert!(now.leftover.as_ref().is_some_and(|left| left.files), "{now:#?}");
        assert_eq!(now.staged(), None);
        let service = Service {
            name: ServiceName::new("app").unwrap(),
            targets: one.to_vec(),
            sources: Vec::new(),
            store: Arc::new(store.clone()),
            replicators: Vec::new(),
            offsite: Vec::new(),
            policy: Policy::default(),
        };
        let engine = engine(&far.lab.pool.root);
        let since = engine.clock.monotonic();
        let report = preseed(&engine, &context("next"), &[&service], since)
            .await
            .remove(0);
        assert_eq!(report.outcome, Outcome::DataPresent, "{report:#?}");
        far.nothing_is_left();
        assert_eq!(far.state(), before);

        // Somebody's own dataset of that name stays.
        sure(["zfs", "create", "-u", &far.fetched()]);
        let request = plan.request.clone();
        let refused = far
            .source(system())
            .plan(&context("plan"), &request)
            .await
            .map(drop);
        assert_eq!(refused.unwrap_err().kind(), SourceKind::Target);
        let refused = far.copy(&plan, &far.dir("own"), system()).await.map(drop);
        assert_eq!(refused.unwrap_err().kind(), SourceKind::Target);
        sure(["zfs", "list", &far.fetched()]);
    });
}

#[test]
fn a_raw_replica_needs_its_key_here_and_what_arrived_waits_for_it() {
    block_on(async {
        let lab = Pair::new();
        let key = lab.pool.encrypted(lab.pool.target("app").dataset.as_str());
        let key = format!("file://{}", key.display());
        let far = Far::over(lab).await;
        let plan = far.plan("one", "dir/wanted").await;
        assert!(plan.steps[1].contains("zfs load-key"), "{plan:#?}");
        let into = far.dir("into");
        let error = far.copy(&plan, &into, system()).await.map(drop).unwrap_err();
        let hint = error.what_to_do().unwrap_or_default();
        assert!(
            hint.contains(&format!("zfs load-key '{}'", far.fetched())),
            "{error} {hint}"
        );
        assert!(!into.join("dir").exists());
        // Nothing has to come again.
        assert_eq!(far.plan("one", "dir/wanted").await.bytes, Some(0));
        sure(["zfs", "load-key", "-L", &key, &far.fetched()]);
        far.copy(&plan, &into, system()).await.unwrap();
        assert_eq!(std::fs::read(into.join("dir/wanted")).unwrap(), b"then");
        far.nothing_is_left();
    });
}
