//! Sources that are not done in their share of the time.

use reseed_core::error::{Common, SourceError};
use reseed_core::event::Silent;
use reseed_core::point::RecoveryPoint;
use reseed_core::source::{RestorePlan, RestoreRequest, Restored, SourceCaps};
use reseed_core::store::Staging;
use reseed_testkit::faults::{Fault, Faults, Faulty, Guard, Op, Rule};

use super::*;

/// Nothing is wrong with what was fetched, and nobody has looked at it yet.
#[test]
fn what_could_not_be_looked_at_in_time_is_kept_and_nothing_older_tried() {
    unhindered(async {
        for states in 1..=3 {
            let mut lab = Lab::new();
            lab.service.policy.source_budget = Duration::from_secs(60);
            lab.service.policy.budget = Duration::from_secs(600);
            for state in 0..states {
                lab.write(&format!("state {state}"));
                lab.snapshot(&format!("s{state}")).await;
            }
            lab.send().await;
            lab.lose(true);
            lab.look.takes.store(FOR_EVER, Ordering::SeqCst);
            let report = lab.preseed().await;
            assert!(matches!(report.outcome, Outcome::Held { .. }), "{report:?}");
            lab.look.takes.store(0, Ordering::SeqCst);
            assert!(lab.world.staged(&lab.target().dataset).is_some());
            let report = lab.preseed().await;
            assert_eq!(report.outcome, Outcome::Restored, "{report:?}");
            let newest = format!("state {}", states - 1);
            assert_eq!(lab.text().as_deref(), Some(newest.as_bytes()));
        }
    });
}

/// Another one would have to begin anew, and be as slow.
#[test]
fn what_a_slow_source_has_brought_does_not_go_for_another_one() {
    unhindered(async {
        let mut lab = Lab::new();
        let b2 = lab.repository().await;
        lab.service.sources.push(b2);
        lab.service.policy.source_budget = Duration::from_secs(60);
        lab.service.policy.budget = Duration::from_secs(600);
        lab.write("all of it");
        lab.snapshot("good").await;
        lab.send().await;
        lab.back_up().await;
        lab.lose(true);
        lab.look.takes.store(FOR_EVER, Ordering::SeqCst);
        let report = lab.preseed().await;
        let Outcome::Held { why } = &report.outcome else {
            panic!("{report:?}")
        };
        assert!(why.contains("brought all of it"), "{why}");
        lab.look.takes.store(0, Ordering::SeqCst);
        let report = lab.preseed().await;
        assert_eq!(report.outcome, Outcome::Restored, "{report:?}");
        assert_eq!(report.source, Some(source("nas")), "{report:?}");
    });
}

/// A source's share is for what it delivers.
#[test]
fn what_was_brought_is_looked_at_as_long_as_there_is_time() {
    unhindered(async {
        let mut lab = Lab::new();
        lab.service.policy.source_budget = Duration::from_secs(60);
        lab.service.policy.budget = Duration::from_secs(600);
        lab.write("all of it");
        lab.snapshot("good").await;
        lab.send().await;
        lab.lose(true);
        lab.look.takes.store(200, Ordering::SeqCst);
        let report = lab.preseed().await;
        assert_eq!(report.outcome, Outcome::Restored, "{report:?}");
    });
}

/// A service of two datasets that is lost; looking at each takes so many seconds.
async fn lost_two(budget: u64, takes: u64) -> Lab {
    let mut lab = Lab::new();
    let more = World::target("tank/more");
    lab.world.make(&more);
    lab.world.write(&more.mountpoint.join("more"), b"and more");
    lab.service.targets.push(more.clone());
    lab.service.policy.source_budget = Duration::from_secs(60);
    lab.service.policy.budget = Duration::from_secs(budget);
    lab.write("all of it");
    lab.snapshot("good").await;
    lab.send().await;
    lab.lose(true);
    lab.world.destroy(&more.dataset, true);
    lab.look.takes.store(takes, Ordering::SeqCst);
    lab
}

/// Looking at the first of several datasets takes longer than the source's share: it has the others all the same.
#[test]
fn what_the_first_dataset_took_is_not_lost_to_the_second() {
    unhindered(async {
        let report = lost_two(1200, 200).await.preseed().await;
        assert_eq!(report.outcome, Outcome::Restored, "{report:?}");
    });
}

/// There is no time left for the second: the first is kept, and the next run goes on.
#[test]
fn where_no_time_is_left_for_the_second_dataset_the_first_is_kept() {
    unhindered(async {
        let lab = lost_two(600, 539).await;
        let report = lab.preseed().await;
        assert!(matches!(report.outcome, Outcome::Held { .. }), "{report:?}");
        lab.look.takes.store(0, Ordering::SeqCst);
        let report = lab.preseed().await;
        assert_eq!(report.outcome, Outcome::Restored, "{report:?}");
    });
}

/// A service with a replica and a repository that both have all of it, each with its faults; the data is lost.
async fn lost() -> (Lab, Faults) {
    let mut lab = Lab::new();
    let b2 = lab.repository().await;
    lab.service.sources.push(b2);
    let faults = Faults::new(lab.clock.clone());
    for source in &mut lab.service.sources {
        let name = source.name().to_string();
        let files = Arc::new(lab.world.clone());
        *source = Arc::new(Faulty::new(source.clone(), &name, &faults, files));
    }
    lab.service.policy.source_budget = Duration::from_secs(60);
    lab.service.policy.budget = Duration::from_secs(1200);
    for nth in 0..8 {
        let path = lab.target().mountpoint.join(format!("more-{nth}"));
        lab.world.write(&path, b"and more of it");
    }
    lab.write("all of it");
    lab.snapshot("good").await;
    lab.send().await;
    lab.back_up().await;
    lab.lose(true);
    (lab, faults)
}

fn strike(faults: &Faults, who: &str, fault: Fault) -> Guard {
    faults.add(Rule::on(Op::SourceExecute, fault).of(who))
}

/// Which source it came from, at which try of it.
fn came_from(report: &ServiceReport) -> (&str, u32) {
    assert_eq!(report.outcome, Outcome::Restored, "{report:?}");
    let last = report.attempts.last().unwrap();
    (last.source.as_str(), last.number)
}

/// It is not ended and begun again for that.
#[test]
fn who_brings_more_is_let_go_on_when_its_share_is_up() {
    unhindered(async {
        let (lab, faults) = lost().await;
        let _slow = strike(&faults, "nas", Fault::Slow(Duration::from_secs(12)));
        let report = lab.preseed().await;
        assert_eq!(came_from(&report), ("nas", 1), "{report:?}");
        assert!(report.seconds > 100.0, "{report:?}");
    });
}

/// Another one is well, and the service need not wait for a boot on which this one is.
#[test]
fn who_stands_still_makes_room_for_who_is_well() {
    unhindered(async {
        let (lab, faults) = lost().await;
        let _hangs = strike(&faults, "nas", Fault::HangIn(6, None));
        let report = lab.preseed().await;
        assert_eq!(came_from(&report), ("b2", 1), "{report:?}");
        assert!(report.seconds < 200.0, "{report:?}");
        let words = report.attempts.iter().find_map(|attempt| attempt.error.as_ref());
        assert!(words.unwrap().to_string().contains("stood still"), "{words:?}");
    });
}

/// Beyond its share it is ended as soon as it stands still, and not at the end of all time.
#[test]
fn who_was_let_go_on_and_stands_still_then_makes_room_too() {
    unhindered(async {
        let (mut lab, faults) = lost().await;
        let slow = Faulty::new(
            lab.service.sources[1].clone(),
            "line",
            &faults,
            Arc::new(lab.world.clone()),
        );
        lab.service.sources[1] = Arc::new(slow);
        let _slow = strike(&faults, "line", Fault::Slow(Duration::from_secs(12)));
        let _hangs = strike(&faults, "nas", Fault::HangIn(8, None));
        let report = lab.preseed().await;
        assert_eq!(came_from(&report), ("b2", 1), "{report:?}");
        assert!((90.0..300.0).contains(&report.seconds), "{report:?}");
    });
}

/// Nor has what comes after it all the time there is: it was let go on once, and hangs at the next try.
#[test]
fn who_was_let_go_on_is_looked_at_again_at_its_next_try() {
    unhindered(async {
        let (mut lab, faults) = lost().await;
        let slow = Faulty::new(
            lab.service.sources[1].clone(),
            "line",
            &faults,
            Arc::new(lab.world.clone()),
        );
        lab.service.sources[1] = Arc::new(slow);
        let first = Rule::on(Op::SourceExecute, Fault::Slow(Duration::from_secs(12)));
        let _slow = faults.add(first.of("line").nth(1));
        let fails = Rule::on(Op::SourceExecute, Fault::Cut(40)).of("nas").nth(1);
        let _fails = faults.add(fails);
        let hangs = Rule::on(Op::SourceExecute, Fault::HangIn(6, None)).of("nas");
        let _hangs = faults.add(hangs);
        let report = lab.preseed().await;
        assert_eq!(came_from(&report), ("b2", 1), "{report:?}");
        assert!(report.seconds < 400.0, "{report:?}");
    });
}

/// What it has is damaged after all, and it has something older.
#[test]
fn who_stood_still_and_turns_out_damaged_is_asked_for_what_is_older() {
    unhindered(async {
        let (mut lab, faults) = lost().await;
        lab.service.sources.truncate(2);
        lab.service.policy.tries = 1;
        let hangs = Rule::on(Op::SourceExecute, Fault::HangIn(6, None)).of("nas");
        let _hangs = faults.add(hangs.nth(1));
        let damaged = Rule::on(Op::SourceExecute, Fault::FailBefore(Common::Corrupt));
        let _damaged = faults.add(damaged.of("nas").nth(1));
        let report = lab.preseed().await;
        assert!(
            matches!(report.outcome, Outcome::StartedEmpty { .. }),
            "it has nothing older: {report:?}"
        );
    });
}

#[test]
fn who_stood_still_is_asked_once_more_behind_the_others() {
    unhindered(async {
        let (lab, faults) = lost().await;
        let down = Fault::FailBefore(Common::Unreachable);
        let b2 = strike(&faults, "b2", down);
        let hangs = Rule::on(Op::SourceExecute, Fault::HangIn(6, None)).of("nas");
        let first = faults.add(hangs.clone().nth(1));
        let report = lab.preseed().await;
        assert_eq!(came_from(&report), ("nas", 2), "{report:?}");
        drop((b2, first));
    });
}

#[test]
fn who_alone_has_it_and_stands_still_holds_the_service_and_keeps_what_it_brought() {
    unhindered(async {
        let (mut lab, faults) = lost().await;
        lab.service.sources.truncate(2);
        let hangs = strike(&faults, "nas", Fault::HangIn(6, None));
        let report = lab.preseed().await;
        let Outcome::Held { why } = &report.outcome else {
            panic!("{report:?}")
        };
        assert!(why.contains("stood still"), "{why}");
        assert!(lab.world.staged(&lab.target().dataset).is_some());
        drop(hangs);
        assert_eq!(came_from(&lab.preseed().await), ("nas", 1));
    });
}

/// A source that tells nothing of its progress.
#[derive(Debug)]
struct Quiet(Arc<dyn RestoreSource>);

#[async_trait]
impl RestoreSource for Quiet {
    fn name(&self) -> &SourceName {
        self.0.name()
    }
    fn caps(&self) -> SourceCaps {
        self.0.caps()
    }
    async fn points(&self, cx: &Context, target: &Target) -> Result<Vec<RecoveryPoint>, SourceError> {
        self.0.points(cx, target).await
    }
    async fn plan(&self, cx: &Context, request: &RestoreRequest) -> Result<RestorePlan, SourceError> {
        self.0.plan(cx, request).await
    }
    async fn execute(
        &self,
        cx: &Context,
        plan: &RestorePlan,
        staging: &Staging,
    ) -> Result<Restored, SourceError> {
        let cx = Context::new(cx.run.clone(), Arc::new(Silent), cx.cancel.clone());
        self.0.execute(&cx, plan, staging).await
    }
}

/// Whether it moves can't be known. It has brought something, so it has the rest of the time.
#[test]
fn who_tells_nothing_of_its_progress_has_the_rest_of_the_time() {
    unhindered(async {
        let (mut lab, faults) = lost().await;
        lab.service.sources[1] = Arc::new(Quiet(lab.service.sources[1].clone()));
        let hangs = Rule::on(Op::SourceExecute, Fault::HangIn(6, None)).of("nas");
        let _first = faults.add(hangs.nth(1));
        let report = lab.preseed().await;
        assert_eq!(came_from(&report), ("nas", 2), "{report:?}");
    });
}

#[test]
fn who_brought_nothing_makes_room() {
    unhindered(async {
        let (lab, faults) = lost().await;
        let _hangs = strike(&faults, "nas", Fault::HangIn(1, None));
        let report = lab.preseed().await;
        assert_eq!(came_from(&report), ("b2", 1), "{report:?}");
    });
}
