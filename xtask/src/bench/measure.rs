//! Running two things alternately and comparing their medians.
//!
//! Wall time is of the whole process, from before it is started until it is reaped. Peak memory is the sum over all
//! processes of the command of each one's own peak resident set (`VmHWM`), read every 5 ms: a command that does its work in
//! a child process gains nothing by that.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::sh;

/// One run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sample {
    pub(super) wall: Duration,
    /// Bytes; 0 when it was not asked for.
    pub(super) peak: u64,
}

/// What can go wrong.
pub(super) type Measured<T> = Result<T, Box<dyn std::error::Error>>;

/// Runs it once. A run that fails is an error: its time would mean nothing.
pub(super) fn once(command: &mut Command, memory: bool) -> Measured<Sample> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let (run, wall) = sh::timed(|| -> std::io::Result<_> {
        let child = command.spawn()?;
        if memory {
            watched(child)
        } else {
            child.wait_with_output().map(|output| (output, 0))
        }
    });
    let (output, peak) = run?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{:?} failed ({}): {said}", command.get_program(), output.status).into());
    }
    Ok(Sample { wall, peak })
}

fn watched(child: Child) -> std::io::Result<(std::process::Output, u64)> {
    let pid = child.id();
    let (done, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let watcher = scope.spawn(move || {
            let mut peaks = BTreeMap::new();
            while ended.recv_timeout(Duration::from_millis(5)) == Err(mpsc::RecvTimeoutError::Timeout) {
                look(pid, &mut peaks);
            }
            peaks.values().sum()
        });
        let output = child.wait_with_output();
        drop(done);
        let peak = watcher.join().unwrap_or(0);
        output.map(|output| (output, peak))
    })
}

/// Notes the peak so far of a process and of all below it.
fn look(pid: u32, peaks: &mut BTreeMap<u32, u64>) {
    let read = |path: String| std::fs::read_to_string(path).unwrap_or_default();
    if let Some(peak) = high_water(&read(format!("/proc/{pid}/status"))) {
        peaks.insert(pid, peak);
    }
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    for thread in threads.into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            look(child, peaks);
        }
    }
}

fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Runs both once to warm up, then in turn, who begins changing each time.
pub(super) fn alternate(
    rounds: usize,
    mut ours: impl FnMut() -> Measured<Sample>,
    mut reference: impl FnMut() -> Measured<Sample>,
) -> Measured<(Samples, Samples)> {
    ours()?;
    reference()?;
    let (mut a, mut b) = (Samples::default(), Samples::default());
    for round in 0..rounds.max(1) {
        if round % 2 == 0 {
            a.0.push(ours()?);
            b.0.push(reference()?);
        } else {
            b.0.push(reference()?);
            a.0.push(ours()?);
        }
    }
    Ok((a, b))
}

/// The runs of one side.
#[derive(Debug, Default)]
pub(super) struct Samples(pub(super) Vec<Sample>);

impl Samples {
    /// The median of the wall times, in seconds.
    pub(super) fn wall(&self) -> f64 {
        median(self.0.iter().map(|sample| sample.wall.as_secs_f64()).collect())
    }

    /// The median of the peaks, in MiB.
    pub(super) fn peak(&self) -> f64 {
        let mib = |sample: &Sample| f64::from(u32::try_from(sample.peak >> 10).unwrap_or(u32::MAX)) / 1024.0;
        median(self.0.iter().map(mib).collect())
    }

    /// The median with the least and the most, as text.
    pub(super) fn text(&self) -> String {
        let mut walls: Vec<f64> = self.0.iter().map(|sample| sample.wall.as_secs_f64()).collect();
        walls.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (walls.first(), walls.last()) else {
            return "-".to_owned();
        };
        format!(
            "{} ({}..{})",
            seconds(self.wall()),
            seconds(*least),
            seconds(*most)
        )
    }
}

/// Seconds for people.
pub(super) fn seconds(value: f64) -> String {
    if value < 1.0 {
        format!("{:.1} ms", value * 1000.0)
    } else {
        format!("{value:.2} s")
    }
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        even if even % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(vec![9.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![4.0, 1.0, 2.0, 9.0]) - 3.0).abs() < f64::EPSILON);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn memory_of_children_counts() {
        let one = once(
            sh::command("sh").args(["-c", "head -c 30000000 /dev/zero | tail -c 30000000"]),
            true,
        );
        let one = one.unwrap();
        assert!(one.peak > 25_000_000, "{one:?}");
    }

    #[test]
    fn a_run_that_fails_is_no_measurement() {
        let failed = once(sh::command("sh").args(["-c", "echo why >&2; exit 3"]), false);
        assert!(failed.unwrap_err().to_string().contains("why"));
    }

    #[test]
    fn rounds_alternate_and_warming_up_does_not_count() {
        let order = std::cell::RefCell::new(String::new());
        let run = |name| {
            order.borrow_mut().push(name);
            Ok(Sample {
                wall: Duration::from_secs(1),
                peak: 0,
            })
        };
        let (a, b) = alternate(3, || run('a'), || run('b')).unwrap();
        assert_eq!((a.0.len(), b.0.len()), (3, 3));
        assert_eq!(order.into_inner(), "ababbaab");
    }
}
