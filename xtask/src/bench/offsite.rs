//! Off-site repositories: 1 GiB in 20,000 files, in one local repository that restic has made, and in a bucket that answers late.
//!
//! Ours and the newest restic that there is run in turn; restic has its cache, but where it is the driver's or reads everything. A row
//! that says `again` or `driver` is of one call of an engine, the others of the whole program. What came back is compared with the original once for
//! each side.

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::measure::{Measured, Sample, alternate, once};
use super::{Bench, Row, Rows, data, prepare, release};
use crate::{newer_restic, sh};

const FILES: usize = 20_000;
const BYTES: u64 = 1 << 30;
/// So much later the bucket answers each request.
const LATE_MS: &str = "20";
/// What is restored by itself: it lies in the middle.
const ONE: &str = "d040/f100";

/// The part of a configuration that is the same for all services.
pub(super) fn config_head(dir: &data::Scratch) -> String {
    format!(
        "host = \"bench\"\nstate_dir = {:?}\n\n[stores.local]\ntype = \"directory\"\npath = {:?}\n",
        dir.join("state"),
        dir.join("store")
    )
}

/// Everything that both sides work with.
struct Lab<'b> {
    dir: &'b data::Scratch,
    reseed: PathBuf,
    engine: PathBuf,
    restic: PathBuf,
    tree: PathBuf,
    repo: PathBuf,
    password: PathBuf,
    config: PathBuf,
    ours: PathBuf,
    theirs: PathBuf,
    rounds: usize,
}

impl Lab<'_> {
    fn restic(&self, repository: &str) -> Command {
        let mut restic = sh::command(&self.restic);
        restic
            .args(["--repo", repository, "--quiet", "--password-file"])
            .arg(&self.password)
            .arg("--cache-dir")
            .arg(self.dir.join("restic-cache"));
        restic
    }

    fn local(&self) -> Command {
        self.restic(&self.repo.display().to_string())
    }

    fn reseed(&self, words: &[&str]) -> Command {
        let mut command = sh::command(&self.reseed);
        command.arg("--config").arg(&self.config).args(words);
        command
    }

    fn restored(&self, from: &str) -> Command {
        let mut command = self.reseed(&["restore", "bench", "--from", from, "--to"]);
        command.arg(&self.ours);
        command
    }

    /// A restore by the embedded engine alone, onto what is there.
    fn again(&self) -> Command {
        let mut command = sh::command(&self.engine);
        command.arg("restore").args([&self.repo, &self.password]);
        command.arg("latest").args([&self.ours, &self.tree]);
        command
    }

    /// What restic calls the tree in its newest snapshot.
    fn latest(&self) -> String {
        format!("latest:{}", self.tree.display())
    }

    fn row(&self, name: &str, goal: f64, memory: bool, pair: &Pair<'_>) -> Measured<(Row, f64)> {
        let aside = Cell::new(0);
        let fresh = |target: &Path, clear: bool, command: &mut Command| -> Measured<Sample> {
            if clear && target.exists() {
                // Kept until the end: ext4 looks for new inodes the longer the more were freed in the last minutes.
                aside.set(aside.get() + 1);
                fs::rename(target, self.dir.join(&format!("restored-{name}-{}", aside.get())))?;
            }
            // Nothing is left to be written back by the kernel from the run before.
            prepare(&mut sh::command("sync"))?;
            once(command, memory)
        };
        let (ours, theirs) = alternate(
            self.rounds,
            || fresh(pair.our_target, pair.clear, &mut (pair.ours)()),
            || fresh(pair.their_target, pair.clear, &mut (pair.theirs)()),
        )?;
        let ratio = ours.wall() / theirs.wall();
        let row = Row {
            name: name.to_owned(),
            ours: ours.text(),
            reference: format!("restic {}", theirs.text()),
            ratio: format!("{ratio:.3}x"),
            goal: format!("<= {goal}x"),
            reached: Some(ratio <= goal),
        };
        let peak = if memory { ours.peak() / theirs.peak() } else { 0.0 };
        Ok((row, peak))
    }
}

/// Two commands that do the same, and where they write.
struct Pair<'a> {
    ours: &'a dyn Fn() -> Command,
    theirs: &'a dyn Fn() -> Command,
    our_target: &'a Path,
    their_target: &'a Path,
    /// Whether the targets go before each run.
    clear: bool,
}

pub(super) fn run(bench: &Bench, yes: bool) -> Rows {
    let lab = made(bench, yes)?;
    let mut rows = Vec::new();
    rows.extend(restores(&lab)?);
    rows.push(checked(&lab)?);
    Ok(rows)
}

/// A backup of what hasn't changed: the whole of `reseed backup` behind a new snapshot, which isn't part of it. Of one service, and of five
/// with a fifth of the files each in one call, as its timer has it; restic takes one call for each.
pub(super) fn unchanged(bench: &Bench, yes: bool) -> Rows {
    let lab = made(bench, yes)?;
    let one = backed_up(
        &lab,
        "offsite-unchanged",
        &[("bench".to_owned(), lab.tree.clone())],
    )?;
    let mut five = Vec::new();
    let mut sections = String::new();
    for at in 0..5 {
        let (name, tree) = (format!("part{at}"), lab.dir.join(&format!("part{at}")));
        data::tree(&tree, FILES / 5, BYTES / 5, 3 + at)?;
        prepare(lab.local().args(["backup", "--host", "bench"]).arg(&tree))?;
        let _ = writeln!(sections, "[services.{name}]\npath = {tree:?}\n");
        five.push((name, tree));
    }
    configure(&lab, &sections)?;
    prepare(&mut lab.reseed(&["init"]))?;
    Ok(vec![one, backed_up(&lab, "offsite-unchanged-five", &five)?])
}

/// Backs up these services, none of which has changed.
fn backed_up(lab: &Lab<'_>, row: &str, services: &[(String, PathBuf)]) -> Measured<Row> {
    let names = |verb: &str| {
        let mut command = lab.reseed(&[verb]);
        command.args(services.iter().map(|(name, _)| name));
        command
    };
    prepare(&mut names("snapshot"))?;
    // The first one reads, and finds all content there.
    prepare(&mut names("backup"))?;
    let (ours, theirs) = alternate(
        lab.rounds,
        || {
            prepare(&mut names("snapshot"))?;
            prepare(&mut sh::command("sync"))?;
            once(&mut names("backup"), false)
        },
        || {
            prepare(&mut sh::command("sync"))?;
            let mut all = Sample::default();
            for (_, tree) in services {
                let mut restic = lab.local();
                let one = once(restic.args(["backup", "--host", "bench"]).arg(tree), false)?;
                all.wall += one.wall;
            }
            Ok(all)
        },
    )?;
    for (name, _) in services {
        let history = prepare(&mut lab.reseed(&["history", name, "--kind", "backup", "--json"]))?;
        if history.matches("unchanged since").count() <= lab.rounds {
            return Err(format!("not each of them was recorded without reading:\n{history}").into());
        }
    }
    let ratio = ours.wall() / theirs.wall();
    Ok(Row {
        name: row.to_owned(),
        ours: ours.text(),
        reference: format!("restic {}", theirs.text()),
        ratio: format!("{ratio:.3}x"),
        goal: "<= 0.1x".to_owned(),
        reached: Some(ratio <= 0.1),
    })
}

fn made<'b>(bench: &'b Bench, yes: bool) -> Measured<Lab<'b>> {
    let reseed = release(&["--package", "reseed"], "reseed")?;
    let engine = release(
        &["--package", "reseed-backend-restic", "--example", "engine"],
        "examples/engine",
    )?;
    let dir = &bench.dir;
    let lab = Lab {
        dir,
        reseed,
        engine,
        restic: newer_restic::ensure(yes)?.restic,
        tree: dir.join("tree"),
        repo: dir.join("repo"),
        password: dir.join("password"),
        config: dir.join("reseed.toml"),
        ours: dir.join("ours"),
        theirs: dir.join("theirs"),
        rounds: bench.rounds.unwrap_or(5),
    };
    eprintln!("making {FILES} files");
    data::tree(&lab.tree, FILES, BYTES, 2)?;
    fs::write(&lab.password, "benchmark\n")?;
    prepare(lab.local().arg("init"))?;
    prepare(lab.local().args(["backup", "--host", "bench"]).arg(&lab.tree))?;
    configure(&lab, "")?;
    prepare(&mut lab.reseed(&["init"]))?;
    Ok(lab)
}

fn configure(lab: &Lab<'_>, more: &str) -> Measured<()> {
    let config = format!(
        "{}\n[offsite.offsite]\ntype = \"embedded\"\nrepository = {:?}\npassword_file = {:?}\n\n{more}\n\
         [services.bench]\npath = {:?}\n",
        config_head(lab.dir),
        lab.repo,
        lab.password,
        lab.tree
    );
    Ok(fs::write(&lab.config, config)?)
}

/// All of it into nothing, once more onto what came back, and a single file.
fn restores(lab: &Lab<'_>) -> Rows {
    let theirs = |target: &Path| {
        let mut restic = lab.local();
        restic.args(["restore", &lab.latest(), "--target"]).arg(target);
        restic
    };
    let (whole, peak) = lab.row(
        "offsite-restore",
        0.6,
        true,
        &Pair {
            ours: &|| lab.restored("offsite"),
            theirs: &|| theirs(&lab.theirs),
            our_target: &lab.ours,
            their_target: &lab.theirs,
            clear: true,
        },
    )?;
    same(&lab.tree, &lab.ours)?;
    same(&lab.tree, &lab.theirs)?;
    let memory = Row {
        name: "offsite-restore-memory".to_owned(),
        ours: String::new(),
        reference: "restic".to_owned(),
        ratio: format!("{peak:.2}x"),
        goal: "<= 1.5x".to_owned(),
        reached: Some(peak <= 1.5),
    };
    let (again, _) = lab.row(
        "offsite-restore-again",
        0.3,
        false,
        &Pair {
            ours: &|| lab.again(),
            theirs: &|| theirs(&lab.theirs),
            our_target: &lab.ours,
            their_target: &lab.theirs,
            clear: false,
        },
    )?;
    same(&lab.tree, &lab.ours)?;
    let (one, _) = lab.row(
        "offsite-file",
        0.35,
        false,
        &Pair {
            ours: &|| {
                let mut command = lab.restored("offsite");
                command.args(["--path", ONE]);
                command
            },
            theirs: &|| {
                let mut restic = theirs(&lab.theirs);
                restic.args(["--include", &format!("/{ONE}")]);
                restic
            },
            our_target: &lab.ours,
            their_target: &lab.theirs,
            clear: true,
        },
    )?;
    for restored in [&lab.ours, &lab.theirs] {
        if fs::read(restored.join(ONE))? != fs::read(lab.tree.join(ONE))? {
            return Err(format!("{} has not come back", restored.join(ONE).display()).into());
        }
    }
    Ok(vec![whole, memory, again, one])
}

/// A check that reads all data.
fn checked(lab: &Lab<'_>) -> Measured<Row> {
    let (row, _) = lab.row(
        "offsite-check",
        0.7,
        false,
        &Pair {
            ours: &|| lab.reseed(&["verify", "offsite", "--depth", "everything"]),
            theirs: &|| {
                // Ours has no cache either.
                let mut restic = lab.local();
                restic.args(["--no-cache", "check", "--read-data"]);
                restic
            },
            our_target: &lab.ours,
            their_target: &lab.theirs,
            clear: false,
        },
    )?;
    Ok(row)
}

/// The driver around restic, against the same calls of restic alone: the backend's own example measures both.
pub(super) fn driven(bench: &Bench, yes: bool) -> Rows {
    let lab = &made(bench, yes)?;
    let driver = release(
        &["--package", "reseed-backend-restic", "--example", "driver"],
        "examples/driver",
    )?;
    let mut driver = sh::command(&driver);
    driver.arg(&lab.restic).arg(&lab.tree).arg(lab.rounds.to_string());
    let said = prepare(&mut driver)?;
    let rows: Option<Vec<Row>> = said.lines().map(driver_row).collect();
    Ok(rows.ok_or_else(|| format!("the driver's example says something else: {said}"))?)
}

/// Reads `backup: by hand 1.234 s, driven 1.250 s, ratio 1.013`.
fn driver_row(line: &str) -> Option<Row> {
    let (name, rest) = line.split_once(": by hand ")?;
    let (by_hand, rest) = rest.split_once(", driven ")?;
    let (driven, ratio) = rest.split_once(", ratio ")?;
    Some(Row {
        name: format!("offsite-driver-{name}"),
        ours: driven.to_owned(),
        reference: format!("restic {by_hand}"),
        ratio: format!("{ratio}x"),
        goal: "<= 1.03x".to_owned(),
        reached: Some(ratio.parse::<f64>().ok()? <= 1.03),
    })
}

/// The S3 server of the tests, which ends with us.
struct Late(Child);

impl Drop for Late {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All of it from a bucket that answers late.
pub(super) fn through_s3(bench: &Bench, yes: bool) -> Rows {
    let lab = &made(bench, yes)?;
    let server = release(
        &[
            "--package",
            "reseed-testkit",
            "--features",
            "s3",
            "--example",
            "s3",
        ],
        "examples/s3",
    )?;
    let root = lab.dir.join("s3");
    fs::create_dir(&root)?;
    let mut server = sh::command(&server);
    server
        .arg(&root)
        .args(["backups", LATE_MS])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut server = Late(server.spawn()?);
    let said = server.0.stdout.take().ok_or("the S3 server has no output")?;
    let mut lines = BufReader::new(said).lines();
    let mut line = || {
        lines
            .next()
            .unwrap_or_else(|| Err(std::io::ErrorKind::UnexpectedEof.into()))
    };
    let (endpoint, region, id, secret) = (line()?, line()?, line()?, line()?);
    prepare(
        sh::command("cp")
            .arg("-r")
            .args([&lab.repo, &root.join("backups/nas")]),
    )?;
    let key = lab.dir.join("key");
    fs::write(
        &key,
        format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n"),
    )?;
    configure(
        lab,
        &format!(
            "[offsite.late]\ntype = \"embedded\"\nrepository = \"s3:{endpoint}/backups/nas\"\nregion = \"{region}\"\n\
             credentials_file = {key:?}\nallow_http = true\npassword_file = {:?}\n",
            lab.password
        ),
    )?;
    let repository = format!("s3:{endpoint}/backups/nas");
    let (row, _) = lab.row(
        "offsite-s3",
        0.7,
        false,
        &Pair {
            ours: &|| lab.restored("late"),
            theirs: &|| {
                let mut restic = lab.restic(&repository);
                restic
                    .env("AWS_ACCESS_KEY_ID", &id)
                    .env("AWS_SECRET_ACCESS_KEY", &secret)
                    .env("AWS_DEFAULT_REGION", &region)
                    .args(["restore", &lab.latest(), "--target"])
                    .arg(&lab.theirs);
                restic
            },
            our_target: &lab.ours,
            their_target: &lab.theirs,
            clear: true,
        },
    )?;
    same(&lab.tree, &lab.ours)?;
    same(&lab.tree, &lab.theirs)?;
    Ok(vec![row])
}

fn same(original: &Path, restored: &Path) -> Measured<()> {
    let mut diff = sh::command("diff");
    prepare(
        diff.args(["--recursive", "--brief", "--no-dereference"])
            .arg(original)
            .arg(restored),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_says_is_a_row() {
        let row = driver_row("backup: by hand 1.234 s, driven 1.250 s, ratio 1.013").unwrap();
        assert_eq!(
            (row.name.as_str(), row.reached),
            ("offsite-driver-backup", Some(true))
        );
        assert_eq!((row.ours.as_str(), row.ratio.as_str()), ("1.250 s", "1.013x"));
        assert!(driver_row("backup: driven 1.250 s").is_none());
    }
}
