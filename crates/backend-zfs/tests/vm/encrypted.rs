//! Below which datasets a replica is encrypted, and how.

use std::sync::Arc;

use reseed_backend_zfs::syncoid::Syncoid;
use reseed_backend_zfs::zfs::{Location, Mapping, NativeReplicator, NativeStore, ReplicaSource};
use reseed_core::error::{Effect, ReplicateKind, SourceError, SourceKind};
use reseed_core::names::DatasetName;
use reseed_core::point::Target;
use reseed_core::source::{RestorePlan, Restored};
use reseed_core::store::{Replace, Settle, Staging};
use reseed_core::{Replicator as _, RestoreSource as _, SnapshotStore as _};
use reseed_testkit::conformance::{block_on, context, marker};
use reseed_testkit::files::Files as _;

use crate::chain::{Meddler, noise};
use crate::lab::{Pool, name, run, sure};
use crate::source_lab::{snapshot, whole};

/// A store, and a second pool with an encrypted place and one that isn't.
struct Lab {
    pool: Pool,
    back: Pool,
}

impl Lab {
    fn new() -> Self {
        let lab = Self {
            pool: Pool::sized("256M"),
            back: Pool::sized("256M"),
        };
        lab.encrypted(&lab.root("locked"));
        sure(["zfs", "create", "-o", "canmount=off", &lab.root("open")]);
        lab
    }

    fn root(&self, root: &str) -> String {
        format!("{}/{root}", self.back.pool)
    }

    /// Makes an encrypted dataset, whose key is loaded.
    fn encrypted(&self, dataset: &str) {
        self.pool.encrypted(dataset);
    }

    fn replicator(&self, root: &str) -> NativeReplicator {
        let below = Mapping::below(DatasetName::new(self.root(root)).unwrap());
        NativeReplicator::new(name("second"), &self.pool.store, Location::Local, below)
    }

    /// Its replica, to which two new snapshots were sent twice: in full and after that.
    async fn sent(&self, target: &Target, root: &str, replicator: &NativeReplicator) -> String {
        let cx = context("send");
        for (minutes, names) in [(1, ["one", "two"]), (3, ["three", "four"])] {
            for (minutes, name) in (minutes..).zip(names) {
                self.pool.files.write(&target.mountpoint.join(name), b"in it");
                snapshot(&self.pool, target, &format!("{name}-{root}"), minutes, true).await;
            }
            let plan = replicator.plan(&cx, std::slice::from_ref(target)).await.unwrap();
            let report = replicator.execute(&cx, &plan).await.unwrap();
            assert_eq!(report.failed, []);
        }
        let again = replicator.plan(&cx, std::slice::from_ref(target)).await.unwrap();
        assert_eq!((again.steps, again.left_out), (vec![], vec![]));
        format!("{}/{}", self.root(root), target.dataset)
    }
}

/// A restore of a target's newest point into staging.
struct Restore {
    source: ReplicaSource,
    plan: RestorePlan,
    staging: Staging,
}

impl Restore {
    async fn of(lab: &Lab, target: &Target, root: &str) -> Self {
        let (cx, store) = (context("restore"), &lab.pool.store);
        let below = Mapping::below(DatasetName::new(lab.root(root)).unwrap());
        let source = ReplicaSource::new(name("second"), store, Location::Local, below);
        let point = source.points(&cx, target).await.unwrap().remove(0);
        let (request, stage) = whole(target, &point);
        let plan = source.plan(&cx, &request).await.unwrap();
        let staging = store.stage(&cx, &stage).await.unwrap();
        Self {
            source,
            plan,
            staging,
        }
    }

    async fn run(&self) -> Result<Restored, SourceError> {
        let cx = context("restore");
        self.source.execute(&cx, &self.plan, &self.staging).await
    }
}

fn get(property: &str, dataset: &str) -> String {
    sure(["zfs", "get", "-Hp", "-o", "value", property, dataset])
}

/// By us, and by syncoid; what the dataset has of its own comes along all the same.
async fn plain_is_encrypted_below_an_encrypted_root(syncoid: bool) {
    let lab = Lab::new();
    let target = lab.pool.target("plain");
    let dataset = target.dataset.as_str();
    sure(["zfs", "create", "-o", "recordsize=16K", dataset]);
    for root in ["locked", "open"] {
        let mut replicator = lab.replicator(root);
        if syncoid {
            replicator = replicator.through_syncoid(Syncoid::default());
        }
        let replica = lab.sent(&target, root, &replicator).await;
        let encrypted = root == "locked";
        assert_eq!(get("encryption", &replica) != "off", encrypted, "{replica}");
        let of = if encrypted { lab.root(root) } else { "-".to_owned() };
        assert_eq!(get("encryptionroot", &replica), of);
        assert_eq!(get("recordsize", &replica), "16384");
        // Its key is the root's: with that it is read.
        assert!(lab.back.read(&replica).keys().any(|path| path.ends_with("four")));
        assert_eq!(get("readonly", &replica), "on");
    }
    assert_eq!(get("encryption", dataset), "off");
}

#[test]
fn what_is_not_encrypted_is_so_on_a_replica_below_an_encrypted_root() {
    block_on(plain_is_encrypted_below_an_encrypted_root(false));
}

#[test]
fn what_syncoid_sends_is_encrypted_below_an_encrypted_root_too() {
    block_on(plain_is_encrypted_below_an_encrypted_root(true));
}

#[test]
fn a_raw_replica_stays_as_it_was_sent_below_an_encrypted_root() {
    block_on(async {
        let lab = Lab::new();
        let target = lab.pool.target("secret");
        lab.encrypted(target.dataset.as_str());
        for root in ["locked", "open"] {
            let replicator = lab.replicator(root);
            let replica = lab.sent(&target, root, &replicator).await;
            assert_eq!(get("encryptionroot", &replica), replica);
            assert_eq!(get("keystatus", &replica), "unavailable");
        }
    });
}

#[test]
fn what_is_sent_in_the_clear_is_encrypted_where_its_root_is() {
    block_on(async {
        let lab = Lab::new();
        let target = lab.pool.target("secret");
        lab.encrypted(target.dataset.as_str());
        for (root, of) in [("locked", lab.root("locked")), ("open", "-".to_owned())] {
            let replica = lab.sent(&target, root, &lab.replicator(root).raw(false)).await;
            assert_eq!(get("encryptionroot", &replica), of);
        }
    });
}

/// What was sent in the clear came without properties. When its dataset is in clear text too, they come along, and the first of them that a
/// dataset receives count over what it was given by itself before (OpenZFS 2.3.2), unless that is said once more.
#[test]
fn what_came_without_properties_is_kept_from_the_live_place_when_they_come() {
    block_on(async {
        let lab = Lab::new();
        let target = lab.pool.target("secret");
        let dataset = target.dataset.as_str();
        lab.encrypted(dataset);
        let replicator = lab.replicator("open").raw(false).of_host("nas");
        let replica = lab.sent(&target, "open", &replicator).await;
        // As somebody brings it back who wants it in clear text from now on.
        sure(["zfs", "rename", dataset, &format!("{}/was", lab.pool.pool)]);
        let line = format!(
            "zfs send -R '{replica}@four-open' | zfs receive -x mountpoint -x canmount -x readonly '{dataset}'"
        );
        sure(["sh", "-c", &line]);
        for wanted in ["sharenfs=off", "quota=100M", "canmount=on", "readonly=off"] {
            sure(["zfs", "set", wanted, dataset]);
        }
        sure([
            "zfs",
            "set",
            &format!("mountpoint={}", target.mountpoint.display()),
            dataset,
        ]);
        snapshot(&lab.pool, &target, "plain", 9, true).await;
        let cx = context("send");
        let plan = replicator.plan(&cx, std::slice::from_ref(&target)).await.unwrap();
        assert_eq!(plan.steps[0].set_aside, None, "it goes on with what is there");
        let report = replicator.execute(&cx, &plan).await.unwrap();
        assert_eq!(report.failed, []);
        for (property, wanted) in [
            ("canmount", "noauto"),
            ("readonly", "on"),
            ("mounted", "no"),
            ("quota", "0"),
        ] {
            assert_eq!(get(property, &replica), wanted, "{property}");
        }
        assert_ne!(get("mountpoint", &replica), target.mountpoint.to_str().unwrap());
    });
}

/// A dataset that isn't encrypted, inside of one that is: its replica stands inside of that one's, whose key is elsewhere.
#[test]
fn what_is_plain_inside_of_an_encrypted_dataset_stays_so_inside_of_its_raw_replica() {
    block_on(async {
        let lab = Lab::new();
        let (outer, inner) = (lab.pool.target("outer"), lab.pool.target("outer/inner"));
        lab.encrypted(outer.dataset.as_str());
        sure(["zfs", "create", "-o", "encryption=off", inner.dataset.as_str()]);
        for root in ["locked", "open"] {
            let replicator = lab.replicator(root);
            lab.sent(&outer, root, &replicator).await;
            let replica = lab.sent(&inner, root, &replicator).await;
            assert_eq!(get("encryption", &replica), "off");
        }
    });
}

#[test]
fn without_the_key_of_its_place_nothing_is_received_in_clear_text() {
    block_on(async {
        let lab = Lab::new();
        let target = lab.pool.target("plain");
        sure(["zfs", "create", target.dataset.as_str()]);
        lab.pool
            .files
            .write(&target.mountpoint.join("f"), &noise(2_000_000));
        snapshot(&lab.pool, &target, "one", 1, true).await;
        let root = lab.root("locked");
        let (cx, targets, replicator) = (context("send"), [target.clone()], lab.replicator("locked"));
        let replica = format!("{root}/{}", target.dataset);
        sure([
            "zfs",
            "create",
            "-p",
            "-o",
            "canmount=off",
            replica.rsplit_once('/').unwrap().0,
        ]);
        sure(["zfs", "unmount", "-f", &root]);
        sure(["zfs", "unload-key", "-r", &root]);
        let plan = replicator.plan(&cx, &targets).await.unwrap();
        let error = replicator.execute(&cx, &plan).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ReplicateKind::PermissionDenied, "{error}");
        assert!(
            error.what_to_do().unwrap_or_default().contains("zfs load-key"),
            "{error}"
        );
        assert!(!run(["zfs", "list", &replica]).exit.success());

        // With it; and an interrupted one goes on as it began.
        sure(["zfs", "load-key", &root]);
        let runner = Arc::new(Meddler::cutting(vec![600_000]));
        let store = NativeStore::new(name("local"), runner.clone(), lab.pool.store.places());
        let below = Mapping::below(DatasetName::new(root.clone()).unwrap());
        let cut = NativeReplicator::new(name("second"), &store, Location::Local, below);
        cut.execute(&cx, &plan).await.map(drop).unwrap_err();
        assert!(runner.has_meddled());
        assert_ne!(get("receive_resume_token", &replica), "-");
        snapshot(&lab.pool, &target, "two", 2, true).await;
        let plan = replicator.plan(&cx, &targets).await.unwrap();
        let report = replicator.execute(&cx, &plan).await.unwrap();
        assert_eq!((report.failed, report.sent.len()), (vec![], 2));
        assert_eq!(get("encryptionroot", &replica), root);
    });
}

/// The store's parent was made encrypted after the replica was, say: a stream with properties says `encryption=off` of itself.
#[test]
fn what_comes_back_below_an_encrypted_parent_is_encrypted_though_its_replica_is_not() {
    block_on(async {
        let lab = Lab::new();
        let target = lab.pool.target("the vault/a");
        let vault = format!("{}/svc/the vault", lab.pool.pool);
        sure(["zfs", "create", &vault]);
        sure(["zfs", "create", "-o", "recordsize=16K", target.dataset.as_str()]);
        lab.sent(&target, "open", &lab.replicator("open")).await;
        sure(["zfs", "destroy", "-r", &vault]);
        lab.encrypted(&vault);
        sure(["zfs", "unmount", &vault]);
        sure(["zfs", "unload-key", &vault]);

        let restore = Restore::of(&lab, &target, "open").await;
        let staged = restore.staging.locator.as_str();
        let locked = restore.run().await.unwrap_err();
        assert_eq!(
            (locked.kind(), locked.may_have()),
            (SourceKind::Target, Effect::None),
            "{locked}"
        );
        let hint = locked.what_to_do().unwrap_or_default();
        assert!(hint.contains(&format!("zfs load-key '{vault}'")), "{hint}");
        assert!(!run(["zfs", "list", staged]).exit.success());

        sure(["sh", "-c", hint.split('`').nth(1).unwrap()]);
        restore.run().await.unwrap();
        assert_eq!(get("encryptionroot", staged), vault);
        assert_eq!(get("recordsize", staged), "16384");
        let files = lab.pool.read(staged);
        assert!(files.keys().any(|path| path.ends_with("four")));

        // It is replicated again: what is there is in clear text, and what is sent now isn't.
        let cx = context("again");
        let promote = Settle::Promote {
            staging: restore.staging.clone(),
            replace: Replace::OnlyEmpty,
            marker: marker(&cx, &restore.plan.request.point),
        };
        lab.pool.store.settle(&cx, &promote).await.unwrap();
        let (replicator, targets) = (lab.replicator("open"), std::slice::from_ref(&target));
        let replica = format!("{}/{}", lab.root("open"), target.dataset);
        let as_before = replicator.plan(&cx, targets).await.unwrap();
        assert_eq!((as_before.steps, as_before.left_out), (vec![], vec![]));
        let mut kept = None;
        for (minutes, name) in [(5, "five"), (6, "six")] {
            lab.pool.files.write(&target.mountpoint.join(name), b"in it");
            snapshot(&lab.pool, &target, name, minutes, true).await;
            let plan = replicator.plan(&cx, targets).await.unwrap();
            let aside = plan.steps[0].set_aside.clone();
            assert_eq!(aside.is_some(), minutes == 5, "{plan:?}");
            if let Some(aside) = aside {
                assert!(aside.why.contains("clear text"), "{}", aside.why);
                assert!(plan.steps[0].bytes > Some(0) && plan.steps[0].base.is_none());
                kept = Some(aside.renamed_to);
            }
            let report = replicator.execute(&cx, &plan).await.unwrap();
            assert_eq!(report.failed, []);
            sure(["zfs", "list", &format!("{replica}@{name}")]);
            assert_ne!(get("encryption", &replica), "off");
        }
        // None is lost.
        sure(["zfs", "list", &format!("{}@four-open", kept.unwrap())]);
    });
}

/// What was sent in the clear, and had a key of its own, has it again; where nobody can give it that, nothing arrives.
#[test]
fn what_had_a_key_of_its_own_and_was_sent_in_the_clear_comes_back_encrypted() {
    block_on(async {
        let lab = Lab::new();
        let target = lab.pool.target("secret");
        let dataset = target.dataset.as_str();
        lab.encrypted(dataset);
        let location = get("keylocation", dataset);
        let replica = lab
            .sent(&target, "open", &lab.replicator("open").raw(false))
            .await;
        assert_eq!(get("encryption", &replica), "off");
        sure(["zfs", "set", "keylocation=prompt", dataset]);
        let restore = Restore::of(&lab, &target, "open").await;
        let staged = restore.staging.locator.as_str();
        let refused = restore.run().await.unwrap_err();
        assert_eq!(
            (refused.kind(), refused.may_have()),
            (SourceKind::Target, Effect::None),
            "{refused}"
        );
        assert!(
            refused.what_to_do().unwrap_or_default().contains("keylocation"),
            "{refused}"
        );
        assert!(!run(["zfs", "list", staged]).exit.success());

        sure(["zfs", "set", &format!("keylocation={location}"), dataset]);
        restore.run().await.unwrap();
        assert_eq!(get("encryptionroot", staged), staged);
        assert_eq!(get("keylocation", staged), location);
        assert!(lab.pool.read(staged).keys().any(|path| path.ends_with("four")));
    });
}

/// What had its key from above comes back as an encryption root of its own, and the error says how that ends.
#[test]
fn what_was_sent_raw_says_how_it_has_its_parents_key_again() {
    block_on(async {
        let lab = Lab::new();
        let target = lab.pool.target("vault/the app");
        let vault = format!("{}/svc/vault", lab.pool.pool);
        let key = lab.pool.encrypted(&vault);
        sure(["zfs", "create", target.dataset.as_str()]);
        lab.sent(&target, "open", &lab.replicator("open")).await;
        sure(["zfs", "destroy", "-r", target.dataset.as_str()]);
        let restore = Restore::of(&lab, &target, "open").await;
        let locked = restore.run().await.unwrap_err();
        let hint = locked.what_to_do().unwrap_or_default();
        let staged = restore.staging.locator.as_str();
        let load = format!("zfs load-key -L file:///PATH '{staged}'");
        let change = format!("`zfs change-key -i '{}'`", target.dataset);
        assert!(
            hint.contains(&format!("`{load}`")) && hint.contains(&change),
            "{hint}"
        );
        // As the words say.
        sure(["sh", "-c", &load.replace("/PATH", key.to_str().unwrap())]);
        restore.run().await.unwrap();
        assert_eq!(get("encryptionroot", staged), staged);
        assert_eq!(get("keylocation", staged), "prompt");
        sure(["zfs", "change-key", "-i", staged]);
        assert_eq!(get("encryptionroot", staged), vault);
    });
}

/// Until somebody sets it aside. What is told does it.
#[test]
fn what_was_sent_raw_or_in_the_clear_can_be_continued_only_so_and_that_is_told() {
    block_on(async {
        let lab = Lab::new();
        for (raw, part) in [
            (false, "`raw = false` was left out"),
            (true, "leave out `raw = false` again"),
        ] {
            let target = lab.pool.target(&format!("secret-{raw}"));
            lab.encrypted(target.dataset.as_str());
            lab.sent(&target, "locked", &lab.replicator("locked").raw(raw))
                .await;
            snapshot(&lab.pool, &target, "later", 9, true).await;
            let cx = context("send");
            let other = lab.replicator("locked").raw(!raw);
            let plan = other.plan(&cx, std::slice::from_ref(&target)).await.unwrap();
            let error = other.execute(&cx, &plan).await.unwrap_err();
            let hint = error.report().hint.unwrap();
            assert!(hint.contains(part), "{hint}");
            let (_, rename) = hint.split_once("`zfs rename").unwrap();
            let (rename, _) = rename.split_once('`').unwrap();
            sure(["sh", "-c", &format!("zfs rename{rename}")]);
            let plan = other.plan(&cx, std::slice::from_ref(&target)).await.unwrap();
            let report = other.execute(&cx, &plan).await.unwrap();
            assert_eq!((report.failed, report.sent.len()), (vec![], 5));
        }
    });
}
