//! What anybody may have written into a property costs nobody else anything.

use std::sync::{Arc, Mutex};

use reseed_backend_zfs::zfs::LocalSource;
use reseed_core::Context;
use reseed_core::event::{Event, EventSink};
use reseed_core::names::RunId;
use reseed_core::point::Target;
use reseed_core::store::Condition;
use reseed_core::{Replicator as _, RestoreSource as _, SnapshotStore as _};
use reseed_testkit::conformance::{block_on, context, minute};
use reseed_testkit::files::Files as _;
use tokio_util::sync::CancellationToken;

use crate::chain::Chain;
use crate::lab::{run, sure};
use crate::source_lab::snapshot;

/// Keeps what a run warns of.
#[derive(Debug, Default)]
pub(crate) struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    /// A run that tells them, and where.
    pub(crate) fn of(run: &str) -> (Arc<Self>, Context) {
        let warnings = Arc::new(Self::default());
        let cx = Context::new(
            RunId::new(run).unwrap(),
            warnings.clone(),
            CancellationToken::new(),
        );
        (warnings, cx)
    }

    pub(crate) fn told(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }
}

impl EventSink for Warnings {
    fn emit(&self, _: &RunId, event: Event) {
        if let Event::Warning { message, hint, .. } = event {
            let mut told = self.0.lock().unwrap();
            told.push(message);
            told.extend(hint);
        }
    }
}

pub(crate) fn set(property: &str, value: &[u8], on: &str) {
    use std::os::unix::ffi::OsStringExt as _;
    let assigned = std::ffi::OsString::from_vec([property.as_bytes(), b"=", value].concat());
    let command = reseed_core::exec::Command::new("zfs")
        .arg("set")
        .arg(assigned)
        .arg(on);
    reseed_testkit::vm::pool::blocking(command).unwrap();
}

#[test]
fn an_odd_property_of_a_snapshot_costs_that_one_fact() {
    block_on(async {
        let chain = Chain::new("512M");
        let (odd, other) = (chain.pool.target("odd"), chain.pool.target("other"));
        let (_, first) = chain.made(&odd, 1000).await;
        chain.made(&other, 1000).await;
        let second = snapshot(&chain.pool, &odd, "two", 2, true).await;
        let third = snapshot(&chain.pool, &odd, "three", 3, false).await;
        let full = |name: &str| format!("{}@{name}", odd.dataset);
        let (guid, line) = (other.dataset.as_str(), "1\t2\t3\t0\t5\t-\t-");
        set("reseed:taken", b"a\nb\tc", &full("one"));
        // A whole line of a listing, and a property that is no text.
        let forged = format!("x\t{}\n{guid}@fake\t{line}\t{guid}@fake", full("two"));
        set("reseed:digest", forged.as_bytes(), &full("two"));
        set("reseed:unseeded", b"\xff\xfe", &full("three"));

        let (warnings, cx) = Warnings::of("odd");
        let targets = [odd.clone(), other.clone()];
        let listed = chain.pool.store.list(&cx, &targets).await.unwrap();
        let names: Vec<_> = listed
            .iter()
            .map(|one| format!("{}@{}", one.dataset, one.name))
            .collect();
        let expected = [full("one"), full("two"), full("three"), format!("{guid}@one")];
        assert_eq!(names, expected);
        let guids: Vec<_> = listed[..3].iter().map(|one| one.guid).collect();
        assert_eq!(guids, [first.guid, second.guid, third.guid]);
        // ZFS's own time, now, stands in for the odd one; what isn't odd is believed.
        assert!(listed[0].taken_at != minute(1) && listed[0].fingerprint.is_some());
        assert!(listed[1].taken_at == minute(2) && listed[1].fingerprint.is_none());
        assert!(listed[2].taken_at == minute(3) && !listed[2].unseeded);
        assert!(listed[3].taken_at == minute(1) && listed[3].fingerprint.is_some());
        let told = warnings.told();
        assert!(
            told.contains(&format!("reseed:taken of {}", full("one")))
                && told.contains(&format!("reseed:digest of {}", full("two"))),
            "{told}"
        );
        // They are sent, offered, and come back.
        chain.replicate(&targets).await;
        let points = chain.source(0).points(&context("points"), &odd).await.unwrap();
        assert_eq!(points.len(), 3, "{points:?}");
        let plan = chain
            .replicator(0, &chain.pool.store)
            .plan(&cx, &targets)
            .await
            .unwrap();
        assert_eq!(plan.steps, []);
        let expected = chain.pool.files.list(&odd.mountpoint);
        chain.lose(&odd);
        let report = chain.preseed("back", &chain.service(&[&odd])).await;
        chain.is_back(&odd, &expected, &report);
    });
}

async fn condition(chain: &Chain, target: &Target) -> Condition {
    chain.look(target).await.condition
}

#[test]
fn an_odd_property_of_a_dataset_costs_nobody_else_anything() {
    block_on(async {
        let chain = Chain::new("512M");
        let (odd, other) = (chain.pool.target("odd"), chain.pool.target("other"));
        chain.made(&odd, 1000).await;
        chain.made(&other, 1000).await;
        let dataset = other.dataset.as_str();
        let forged = format!("x\tlocal\n{dataset}\tguid\t9\t-\n{dataset}\ttype\tvolume\t-\n");
        let forged = [forged.as_bytes(), b"\xff"].concat();
        set("reseed:marker", &forged, odd.dataset.as_str());
        let both = [odd.clone(), other.clone()];
        let found = chain.pool.store.inspect(&context("look"), &both).await.unwrap();
        assert_eq!(found[1].condition, Condition::Populated, "{found:?}");
        assert_eq!(condition(&chain, &odd).await, Condition::Populated);
        assert_eq!(found[0].marker, None);
        let guid = sure(["zfs", "get", "-Hpo", "value", "guid", dataset]);
        assert_eq!(found[1].guid.unwrap().to_string(), guid);
    });
}

/// ZFS takes names that begin with `-`, or end with a space, and any words as a hold's tag.
#[test]
fn what_is_named_oddly_is_left_out_and_costs_nothing_else() {
    block_on(async {
        let chain = Chain::new("512M");
        let (odd, other) = (chain.pool.target("odd"), chain.pool.target("other"));
        let both = [odd.clone(), other.clone()];
        for target in &both {
            chain.made(target, 1000).await;
        }
        let (dataset, above) = (odd.dataset.as_str(), format!("{}/svc", chain.pool.pool));
        let (replica, theirs) = (chain.replica(0, &odd), chain.replica(0, &other));
        let replicas_above = replica.rsplit_once('/').unwrap().0.to_owned();
        chain.pool.files.write(&odd.mountpoint.join("first"), b"1");
        sure(["zfs", "snapshot", &format!("{dataset}@-x")]);
        chain.pool.files.write(&odd.mountpoint.join("second"), b"2");
        snapshot(&chain.pool, &odd, "two", 2, true).await;
        let expected = chain.pool.files.list(&odd.mountpoint);
        sure(["zfs", "snapshot", &format!("{dataset}@x ")]);
        for above in [&above, &replicas_above] {
            sure(["zfs", "create", "-o", "canmount=off", &format!("{above}/old ")]);
        }
        sure(["zfs", "hold", "a\nb", &format!("{dataset}@one")]);

        let (warnings, cx) = Warnings::of("odd");
        let listed = chain.pool.store.list(&cx, &both).await.unwrap();
        let names: Vec<_> = listed.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["one", "two", "one"]);
        let tags: Vec<_> = listed[0].holds.iter().map(|tag| tag.as_str()).collect();
        assert_eq!(tags, ["_a"]);
        assert!(warnings.told().contains("@-x"), "{}", warnings.told());
        // It is sent along with the others, and what is up to date is seen to be.
        chain.replicate(&both).await;
        let on_replica = sure([
            "zfs", "list", "-Hp", "-d", "1", "-t", "snapshot", "-o", "name", &replica,
        ]);
        assert!(
            on_replica.contains("@-x") && on_replica.contains("@two"),
            "{on_replica}"
        );
        let replicator = chain.replicator(0, &chain.pool.store);
        assert_eq!(replicator.plan(&cx, &both).await.unwrap().steps, []);
        // A replica's own, with data of its own.
        sure(["zfs", "set", "readonly=off", &theirs]);
        sure(["zfs", "mount", &theirs]);
        let at = sure(["zfs", "get", "-Hpo", "value", "mountpoint", &theirs]);
        std::fs::write(format!("{at}/theirs"), [7; 200_000]).unwrap();
        sure(["zfs", "unmount", &theirs]);
        sure(["zfs", "snapshot", &format!("{theirs}@-own")]);
        let plan = replicator.plan(&cx, &both).await.unwrap();
        let aside = plan.steps[0].set_aside.clone().expect("it has diverged");
        assert!(aside.why.contains("data of its own"), "{}", aside.why);
        // What a rename would take along is seen, whatever it is called.
        let inner = format!("{theirs}/in ");
        sure(["zfs", "create", "-o", "canmount=off", &inner]);
        let plan = replicator.plan(&cx, &both).await.unwrap();
        assert_eq!((plan.steps.len(), plan.left_out.len()), (0, 1), "{plan:?}");
        // None that isn't known goes.
        let all: Vec<_> = listed
            .iter()
            .map(reseed_core::point::Snapshot::reference)
            .collect();
        let pruned = chain.pool.store.prune(&cx, &all).await.unwrap();
        let kept: Vec<_> = pruned.iter().map(|one| one.kept.is_some()).collect();
        assert_eq!(kept, [true, false, false]);
        let left = sure([
            "zfs", "list", "-Hp", "-d", "1", "-t", "snapshot", "-o", "name", dataset,
        ]);
        assert_eq!(left.lines().count(), 3, "{left}");

        // It comes back from what was set aside here, and from the replica.
        snapshot(&chain.pool, &odd, "three", 3, true).await;
        sure(["zfs", "unmount", dataset]);
        sure(["zfs", "set", "canmount=noauto", dataset]);
        let kept = format!("{above}/.reseed-aside:odd:r-1");
        sure(["zfs", "rename", dataset, &kept]);
        let mut service = chain.service(&[&odd]);
        service
            .sources
            .insert(0, Arc::new(LocalSource::new(&chain.pool.store)));
        let report = chain.preseed("local", &service).await;
        chain.is_back(&odd, &expected, &report);
        assert!(report.summary().contains("local"), "{}", report.summary());
        for of in [dataset, &kept] {
            run(["zfs", "release", "a\nb", &format!("{of}@one")]);
        }
        sure(["zfs", "destroy", "-r", &kept]);
        chain.lose(&odd);
        let report = chain.preseed("replica", &service).await;
        chain.is_back(&odd, &expected, &report);
    });
}
