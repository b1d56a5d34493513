//! Off-site restore of 1 GiB in 20,000 files from one local repository that the installed restic has made.
//!
//! `reseed restore` and `restic restore` in turn, each into a directory that is not there before; what came back is compared
//! with the original once for each.

use std::fs;
use std::path::Path;

use super::measure::{Measured, Sample, alternate, once};
use super::{Bench, Row, Rows, data, prepare, release};
use crate::sh;

const FILES: usize = 20_000;
const BYTES: u64 = 1 << 30;

/// The part of a configuration that is the same for all services.
pub(super) fn config_head(dir: &data::Scratch) -> String {
    format!(
        "host = \"bench\"\nstate_dir = {:?}\n\n[stores.local]\ntype = \"directory\"\npath = {:?}\n",
        dir.join("state"),
        dir.join("store")
    )
}

pub(super) fn run(bench: &Bench) -> Rows {
    let reseed = release(&["--package", "reseed"], "reseed")?;
    let dir = &bench.dir;
    let (tree, repo, password) = (dir.join("tree"), dir.join("repo"), dir.join("password"));
    eprintln!("making {FILES} files");
    data::tree(&tree, FILES, BYTES, 2)?;
    fs::write(&password, "benchmark\n")?;
    let restic = || {
        let mut restic = sh::command("restic");
        restic
            .arg("--repo")
            .arg(&repo)
            .arg("--password-file")
            .arg(&password);
        restic
            .arg("--cache-dir")
            .arg(dir.join("restic-cache"))
            .arg("--quiet");
        restic
    };
    prepare(restic().arg("init"))?;
    prepare(restic().args(["backup", "--host", "bench"]).arg(&tree))?;

    let config = format!(
        "{}\n[offsite.offsite]\ntype = \"embedded\"\nrepository = {repo:?}\npassword_file = {password:?}\n\n\
         [services.bench]\npath = {tree:?}\n",
        config_head(dir)
    );
    let file = dir.join("reseed.toml");
    fs::write(&file, config)?;
    prepare(sh::command(&reseed).args(["init", "--config"]).arg(&file))?;

    let ours = dir.join("ours");
    let ours_command = || {
        let mut command = sh::command(&reseed);
        command
            .args(["restore", "bench", "--from", "offsite", "--to"])
            .arg(&ours);
        command.arg("--config").arg(&file);
        command
    };
    let theirs = dir.join("theirs");
    let their_command = || {
        let mut command = restic();
        command.args(["restore", "latest", "--target"]).arg(&theirs);
        command
    };
    let inside = tree.strip_prefix("/").unwrap_or(&tree);
    run_into(&ours, &mut ours_command())?;
    same(&tree, &ours)?;
    run_into(&theirs, &mut their_command())?;
    same(&tree, &theirs.join(inside))?;

    let (a, b) = alternate(
        bench.rounds.unwrap_or(5),
        || run_into(&ours, &mut ours_command()),
        || run_into(&theirs, &mut their_command()),
    )?;
    let wall = a.wall() / b.wall();
    let peak = a.peak() / b.peak();
    Ok(vec![
        Row {
            name: "offsite-restore".to_owned(),
            ours: a.text(),
            reference: format!("restic {}", b.text()),
            ratio: format!("{wall:.2}x"),
            goal: "<= 0.8x".to_owned(),
            reached: Some(wall <= 0.8),
        },
        Row {
            name: "offsite-restore-memory".to_owned(),
            ours: format!("{:.0} MiB", a.peak()),
            reference: format!("restic {:.0} MiB", b.peak()),
            ratio: format!("{peak:.2}x"),
            goal: "<= 1.5x".to_owned(),
            reached: Some(peak <= 1.5),
        },
    ])
}

/// Runs into a directory that isn't there, with nothing left to be written back by the kernel from the run before.
fn run_into(target: &Path, command: &mut std::process::Command) -> Measured<Sample> {
    if target.exists() {
        fs::remove_dir_all(target)?;
    }
    prepare(&mut sh::command("sync"))?;
    once(command, true)
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
