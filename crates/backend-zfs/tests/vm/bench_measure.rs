//! How the benchmarks measure: both sides in turn in one run, one round first that doesn't count, medians. Each figure leaves
//! a line for `cargo xtask bench zfs`.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reseed_core::clock::{Clock as _, SystemClock};
use reseed_testkit::vm::guest;

use crate::lab::{Counting, sure};

pub(crate) fn median(mut all: Vec<Duration>) -> f64 {
    all.sort();
    all[all.len() / 2].as_secs_f64()
}

/// What a ratio must be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

/// Leaves the line that `cargo xtask bench` reads; whether the goal is reached.
pub(crate) fn reached(name: &str, (ours, reference): (f64, f64), ratio: f64, goal: Goal) -> bool {
    let (well, goal) = match goal {
        Goal::AtLeast(least) => (ratio >= least, format!(">= {least}")),
        Goal::AtMost(most) => (ratio <= most, format!("<= {most}")),
    };
    leave(&format!(
        "{name}\t{ours:.3} s\t{reference:.3} s\t{ratio:.3}\t{goal}\t{well}"
    ));
    well
}

/// The same of a number of processes.
pub(crate) fn counted(name: &str, ours: usize, most: usize) -> bool {
    let well = ours <= most;
    leave(&format!("{name}\t{ours}\t-\t-\t<= {most}\t{well}"));
    well
}

fn leave(line: &str) {
    println!("ratio\t{line}");
    let file = Path::new(guest::SHARE).join("ratios");
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .unwrap();
    std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes()).unwrap();
}

/// How long it took.
pub(crate) async fn timed<T>(clock: &SystemClock, work: impl Future<Output = T>) -> (Duration, T) {
    let began = clock.monotonic();
    let done = work.await;
    (clock.monotonic().saturating_sub(began), done)
}

/// How many processes were started since the last time.
pub(crate) fn started(counting: &Counting) -> usize {
    counting.started.swap(0, Ordering::SeqCst)
}

/// The medians of two, in seconds. Each prepares for itself, says how long its own part took, and puts things back.
pub(crate) async fn in_turn(
    rounds: usize,
    mut ours: impl AsyncFnMut() -> Duration,
    mut theirs: impl AsyncFnMut() -> Duration,
) -> (f64, f64) {
    let (mut all, mut others) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        for who in 0..2 {
            // Who is first changes.
            match (who + round) % 2 {
                0 => all.push(ours().await),
                _ => others.push(theirs().await),
            }
        }
    }
    println!("ours {all:?}\ntheirs {others:?}");
    all.remove(0);
    others.remove(0);
    (median(all), median(others))
}

/// Sets the machine's clock to so many days ago while something is done, so that nobody needs a false one afterwards.
pub(crate) fn days_ago(days: u32, work: impl FnOnce()) {
    let clock = SystemClock::new();
    let (now, began) = (clock.now(), clock.monotonic());
    let set = |seconds: i64| sure(["date", "-s", &format!("@{seconds}")]);
    set(now.as_second() - i64::from(days) * 24 * 3600);
    work();
    let took = (clock.monotonic() - began).as_secs();
    set(now.as_second() + i64::try_from(took).unwrap());
}
