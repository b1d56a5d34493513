//! Preseed of 50 services whose data is present: what every boot pays.
//!
//! The whole process, its start and its journal included, against one bare `find -maxdepth 1` over the same 50 roots.

use std::fmt::Write as _;
use std::fs;

use super::measure::{alternate, once, seconds};
use super::{Bench, Row, Rows, prepare, release};
use crate::sh;

const SERVICES: usize = 50;
const ENTRIES: usize = 40;

pub(super) fn run(bench: &Bench) -> Rows {
    let reseed = release(&["--package", "reseed"], "reseed")?;
    let mut roots = Vec::new();
    let mut config = super::offsite::config_head(&bench.dir);
    for service in 0..SERVICES {
        let name = format!("service{service:02}");
        let root = bench.dir.join(&name);
        fs::create_dir(&root)?;
        for entry in 0..ENTRIES {
            fs::write(root.join(format!("entry{entry:02}")), name.as_bytes())?;
        }
        let _ = write!(config, "\n[services.{name}]\npath = {root:?}\n");
        roots.push(root);
    }
    let file = bench.dir.join("reseed.toml");
    fs::write(&file, config)?;

    let preseed = || {
        let mut command = sh::command(&reseed);
        command.args(["preseed", "--all", "--config"]).arg(&file);
        command
    };
    prepare(sh::command(&reseed).args(["init", "--config"]).arg(&file))?;
    let said = prepare(&mut preseed())?;
    let skipped = said.matches("skipped restore").count();
    if skipped != SERVICES {
        return Err(format!("{skipped} of {SERVICES} services were skipped as present:\n{said}").into());
    }
    let (ours, find) = alternate(
        bench.rounds.unwrap_or(31),
        || once(&mut preseed(), false),
        || once(sh::command("find").args(&roots).args(["-maxdepth", "1"]), false),
    )?;
    let most = 1.5 * find.wall() + 0.010;
    Ok(vec![Row {
        name: "preseed-present".to_owned(),
        ours: ours.text(),
        reference: format!("find {}", find.text()),
        ratio: format!("{:.2}x", ours.wall() / find.wall()),
        goal: format!("< 1.5x + 10 ms = {}", seconds(most)),
        reached: Some(ours.wall() < most),
    }])
}
