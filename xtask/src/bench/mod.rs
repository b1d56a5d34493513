//! `cargo xtask bench`: every figure of docs/benchmarks.md, measured again against its reference on this machine.
//!
//! Each benchmark makes its data from a seed, runs ours and the reference alternately in one go, checks that both did the
//! work, and compares medians. Absolute numbers are of the machine; what is held is the ratio.

mod data;
mod digest;
mod measure;
mod offsite;
mod present;
mod simulator;
mod zfs;

use std::path::PathBuf;
use std::process::Command;

use crate::{Done, setup, sh};

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these; all without a name.
    #[arg(value_enum)]
    names: Vec<Name>,
    /// Where the data is made, and removed afterwards. A filesystem on a disk, with some 6 GiB free, 30 for `offsite`.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Pairs of runs that count, behind one that warms up. Each benchmark has its own number.
    #[arg(long)]
    rounds: Option<usize>,
    /// Install what is missing without asking.
    #[arg(long)]
    yes: bool,
}

/// The benchmarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Name {
    /// Preseed of 50 services whose data is present, against `find -maxdepth 1`.
    PreseedPresent,
    /// The tree digest of 2 GiB in 50,000 files, against b3sum, and against itself with a cache.
    Digest,
    /// Simulated schedules per second and core.
    Sim,
    /// Restores and a check of a repository of 1 GiB in 20,000 files, against the newest restic that there is.
    Offsite,
    /// A restore of the same through S3, from a bucket that answers late, against the same restic.
    OffsiteS3,
    /// What the driver adds to the same restic's own time.
    OffsiteDriver,
    /// A backup of 1 GiB in 20,000 files that haven't changed, against the same restic.
    OffsiteUnchanged,
    /// Restore from a replica, preseed, planning and pruning on real ZFS in a virtual machine, against the bare commands.
    Zfs,
}

const ALL: [Name; 8] = [
    Name::PreseedPresent,
    Name::Digest,
    Name::Sim,
    Name::Offsite,
    Name::OffsiteS3,
    Name::OffsiteDriver,
    Name::OffsiteUnchanged,
    Name::Zfs,
];

/// What a benchmark gets.
#[derive(Debug)]
struct Bench {
    dir: data::Scratch,
    rounds: Option<usize>,
}

/// One line of the result.
#[derive(Debug)]
struct Row {
    name: String,
    ours: String,
    reference: String,
    ratio: String,
    goal: String,
    /// Nothing when it is only there to be read.
    reached: Option<bool>,
}

type Rows = Result<Vec<Row>, Box<dyn std::error::Error>>;

pub(crate) fn run(args: &Args) -> Done {
    let names = if args.names.is_empty() {
        &ALL[..]
    } else {
        &args.names
    };
    let mut needs = Vec::new();
    for name in names {
        match name {
            Name::Digest => needs.push(setup::B3SUM),
            Name::PreseedPresent
            | Name::Sim
            | Name::Offsite
            | Name::OffsiteS3
            | Name::OffsiteDriver
            | Name::OffsiteUnchanged
            | Name::Zfs => {}
        }
    }
    setup::ensure(&needs, args.yes)?;
    let mut rows = Vec::new();
    let mut well = true;
    for name in names {
        let bench = Bench {
            dir: data::Scratch::new(args.dir.as_deref())?,
            rounds: args.rounds,
        };
        eprintln!("--- {name:?} ---");
        let result = match name {
            Name::PreseedPresent => present::run(&bench),
            Name::Digest => digest::run(&bench),
            Name::Sim => simulator::run(&bench),
            Name::Offsite => offsite::run(&bench, args.yes),
            Name::OffsiteS3 => offsite::through_s3(&bench, args.yes),
            Name::OffsiteDriver => offsite::driven(&bench, args.yes),
            Name::OffsiteUnchanged => offsite::unchanged(&bench, args.yes),
            Name::Zfs => zfs::run(args.yes),
        };
        match result {
            Ok(more) => rows.extend(more),
            Err(error) => {
                eprintln!("error: {name:?}: {error}");
                well = false;
            }
        }
    }
    print(&rows);
    well &= rows.iter().all(|row| row.reached != Some(false));
    println!(
        "{}",
        if well {
            "every goal is reached"
        } else {
            "a goal is not reached"
        }
    );
    Ok(well)
}

fn print(rows: &[Row]) {
    let head = ["name", "ours", "reference", "ratio", "goal", "reached"].map(str::to_owned);
    let lines = rows.iter().map(|row| {
        let reached = row.reached.map_or("-", |well| if well { "yes" } else { "NO" });
        [&row.name, &row.ours, &row.reference, &row.ratio, &row.goal]
            .map(String::clone)
            .into_iter()
            .chain([reached.to_owned()])
            .collect()
    });
    let lines: Vec<Vec<String>> = std::iter::once(head.to_vec()).chain(lines).collect();
    for line in &lines {
        let cells = line.iter().enumerate().map(|(column, cell)| {
            let width = lines
                .iter()
                .map(|line| line[column].chars().count())
                .max()
                .unwrap_or(0);
            format!("{cell:width$}")
        });
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

/// Builds a program of the workspace in release mode and returns where it is.
fn release(what: &[&str], relative: &str) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let mut build = sh::cargo();
    build.args(["build", "--quiet", "--release"]).args(what);
    if !sh::run(&mut build)? {
        return Err("it does not build, see above".into());
    }
    let mut metadata = sh::cargo();
    metadata.args(["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: serde_json::Value = serde_json::from_str(&sh::output(&mut metadata)?.stdout)?;
    let target = metadata["target_directory"]
        .as_str()
        .ok_or("cargo metadata names no target directory")?;
    Ok(PathBuf::from(target).join("release").join(relative))
}

/// Runs something that only prepares, and is an error when it fails.
fn prepare(command: &mut Command) -> Result<String, Box<dyn std::error::Error>> {
    let said = sh::output(command)?;
    if said.status.success() {
        Ok(said.stdout)
    } else {
        Err(format!("{:?}: {}{}", command.get_program(), said.stdout, said.stderr).into())
    }
}
