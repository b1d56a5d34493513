//! Simulated schedules per second and core.

use super::measure::{Samples, once};
use super::{Bench, Row, Rows, release};
use crate::sh;

const SEEDS: u32 = 20_000;
const GOAL: f64 = 2_000.0;

pub(super) fn run(bench: &Bench) -> Rows {
    let sim = release(
        &["--package", "reseed-testkit", "--example", "sim"],
        "examples/sim",
    )?;
    let cores = sh::processors();
    let cores = u32::try_from(cores).unwrap_or(u32::MAX);
    let run = || {
        let mut command = sh::command(&sim);
        once(
            command.args(["--seeds", &SEEDS.to_string(), "--threads", &cores.to_string()]),
            false,
        )
    };
    run()?;
    let mut samples = Samples::default();
    for _ in 0..bench.rounds.unwrap_or(3) {
        samples.0.push(run()?);
    }
    let rate = f64::from(SEEDS) / samples.wall() / f64::from(cores);
    Ok(vec![Row {
        name: "sim".to_owned(),
        ours: format!("{rate:.0} schedules/s per core ({cores} cores)"),
        reference: "-".to_owned(),
        ratio: "-".to_owned(),
        goal: format!(">= {GOAL:.0}"),
        reached: Some(rate >= GOAL),
    }])
}
