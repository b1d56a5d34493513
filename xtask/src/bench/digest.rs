//! The tree digest over 2 GiB in 50,000 files in the page cache.
//!
//! Against `b3sum --num-threads 2` over the same files, which reads the bytes and nothing else, while the tree digest also
//! reads every entry's metadata. b3sum takes one file after the other; `xargs -P 2` over it is shown beside it.

use std::fs;

use super::measure::{alternate, once, seconds};
use super::{Bench, Row, Rows, data, release};
use crate::sh;

const FILES: usize = 50_000;
const BYTES: u64 = 2 << 30;
const THREADS: &str = "2";

pub(super) fn run(bench: &Bench) -> Rows {
    let digest = release(
        &["--package", "reseed-core", "--example", "digest"],
        "examples/digest",
    )?;
    let tree = bench.dir.join("tree");
    let cache = bench.dir.join("cache");
    eprintln!("making {FILES} files");
    let names = data::tree(&tree, FILES, BYTES, 1)?;
    let rounds = bench.rounds.unwrap_or(5);

    let ours = || {
        once(
            sh::command(&digest).args(["--threads", THREADS]).arg(&tree),
            false,
        )
    };
    let b3sum = || {
        let mut b3sum = sh::command("b3sum");
        once(
            b3sum
                .args(["--num-threads", THREADS])
                .args(&names)
                .current_dir(&tree),
            false,
        )
    };
    let (whole, reference) = alternate(rounds, ours, b3sum)?;

    let list = bench.dir.join("list");
    let lines: Vec<String> = names.iter().map(|name| format!("{}\n", name.display())).collect();
    fs::write(&list, lines.concat())?;
    let xargs = || {
        let mut xargs = sh::command("xargs");
        xargs
            .arg("--arg-file")
            .arg(&list)
            .args(["-P", THREADS, "-n", "500", "b3sum", "--num-threads", "1"]);
        once(xargs.current_dir(&tree), false)
    };
    let (_, parallel) = alternate(rounds.min(3), ours, xargs)?;

    let with_cache = || {
        let mut command = sh::command(&digest);
        once(
            command
                .arg("--cache")
                .arg(&cache)
                .args(["--threads", THREADS])
                .arg(&tree),
            false,
        )
    };
    let first = || {
        let _ = fs::remove_file(&cache);
        with_cache()
    };
    // Who begins alternates, so a second run may follow another second run; a first run always goes before.
    let (again, first) = alternate(rounds, with_cache, first)?;

    let throughput = reference.wall() / whole.wall();
    let gain = first.wall() / again.wall();
    Ok(vec![
        Row {
            name: "digest".to_owned(),
            ours: whole.text(),
            reference: format!("b3sum {}", reference.text()),
            ratio: format!("{throughput:.2}x throughput"),
            goal: ">= 0.9x".to_owned(),
            reached: Some(throughput >= 0.9),
        },
        Row {
            name: "digest".to_owned(),
            ours: whole.text(),
            reference: format!("xargs -P 2 b3sum {}", parallel.text()),
            ratio: format!("{:.2}x throughput", parallel.wall() / whole.wall()),
            goal: "none, for comparison".to_owned(),
            reached: None,
        },
        Row {
            name: "digest-cached".to_owned(),
            ours: again.text(),
            reference: format!("first run {}", seconds(first.wall())),
            ratio: format!("{gain:.1}x faster"),
            goal: ">= 20x".to_owned(),
            reached: Some(gain >= 20.0),
        },
    ])
}
