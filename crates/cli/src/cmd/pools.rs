//! Pools in `reseed status`, and `reseed scrub`

use reseed_backend_zfs::zfs::health::{PoolHealth, Scan, ScanFunction, ScanState};
use reseed_core::error::{ErrorReport, OpError, OpKind};
use serde_json::json;

use crate::args::ScrubArgs;
use crate::exit::Exit;
use crate::output::Answer;
use crate::session::Session;
use crate::ui::{self, Mood, Table, printable};

/// How the pools are that the configuration is about; nothing without ZFS.
pub(crate) async fn health(session: &Session) -> Result<Vec<PoolHealth>, ErrorReport> {
    let names = session.pool_names();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let pools = session.pools();
    let asked = pools.health(&session.cx, &names).await;
    asked.map_err(|error| error.report())
}

/// A table of pools, and below it what is wrong with them.
pub(crate) fn shown(session: &Session, pools: &[PoolHealth]) -> String {
    if pools.is_empty() {
        return String::new();
    }
    let now = session.engine.clock.now();
    let mut table = Table::new(&["pool", "state", "used", "fragmented", "scrub", "damaged"]);
    let mut notes = String::new();
    for pool in pools {
        let mood = match (pool.is_well(), pool.state.as_str()) {
            (true, _) => Mood::Good,
            (false, "ONLINE" | "DEGRADED") => Mood::Warn,
            _ => Mood::Bad,
        };
        let used = match (pool.allocated, pool.size, pool.capacity) {
            (Some(allocated), Some(size), Some(percent)) => {
                format!("{percent} %, {} of {}", ui::bytes(allocated), ui::bytes(size))
            }
            _ => "?".to_owned(),
        };
        let scan = match &pool.scan {
            _ if pool.size.is_none() => "?".to_owned(),
            None => "never".to_owned(),
            Some(scan) => said(scan, now.as_second()),
        };
        table.row([
            pool.name.clone(),
            session.ui.paint(mood, &pool.state),
            used,
            pool.fragmentation
                .map_or("?".to_owned(), |percent| format!("{percent} %")),
            scan,
            pool.data_errors.map_or("?".to_owned(), |count| count.to_string()),
        ]);
        for device in &pool.troubled {
            notes.push_str(&printable(&format!(
                "{}: {} is {}: {} read, {} write, {} checksum errors",
                pool.name, device.name, device.state, device.read, device.write, device.checksum
            )));
            notes.push('\n');
        }
        if let Some(status) = pool.status.as_ref().filter(|_| !pool.is_well()) {
            notes.push_str(&format!("{}: {}\n", pool.name, printable(status)));
            if let Some(action) = &pool.action {
                notes.push_str(&format!("  hint: {}\n", printable(action)));
            }
        }
    }
    format!("\n{table}{notes}")
}

fn said(scan: &Scan, now: i64) -> String {
    let what = match scan.function {
        ScanFunction::Scrub => "",
        ScanFunction::Resilver => "resilver ",
    };
    let age = scan
        .at
        .map_or("?".to_owned(), |at| ui::span(now - at.as_second()));
    let percent = scan.percent.unwrap_or(0.0);
    match (scan.state, scan.errors) {
        (ScanState::Finished, Some(0) | None) => format!("{what}{age} ago"),
        (ScanState::Finished, Some(errors)) => format!("{what}{age} ago, {errors} errors"),
        (ScanState::Running, _) => format!("{what}at {percent:.0} %"),
        (ScanState::Paused, _) => format!("{what}paused at {percent:.0} %"),
        (ScanState::Canceled, _) => format!("{what}canceled {age} ago"),
    }
}

/// `reseed scrub`
pub(crate) async fn scrub(args: &ScrubArgs, session: &Session) -> Result<Answer, OpError> {
    let pools = session.pools();
    let failed = |error: reseed_core::error::StoreError| error.convert(OpKind::Failed);
    let (mut text, mut all, mut exit) = (String::new(), Vec::new(), Exit::Ok);
    for name in &args.pools {
        // Before the first one is begun, each has to be there.
        let pool = pools.one(&session.cx, name).await.map_err(failed)?;
        if args.dry_run {
            text.push_str(&format!(
                "would scrub {}, {} in use\n",
                name,
                ui::bytes(pool.allocated.unwrap_or(0))
            ));
            all.push(json!({ "pool": pool, "begun": false }));
        }
    }
    if args.dry_run {
        return Ok(Answer::new(&json!({ "scrubs": all }), text, exit));
    }
    let mut begun = Vec::new();
    for name in &args.pools {
        begun.push(pools.scrub(&session.cx, name).await.map_err(failed)?);
    }
    for (name, begun) in args.pools.iter().zip(begun) {
        let how = if begun {
            "a scrub has begun"
        } else {
            "its scrub goes on"
        };
        if !args.wait {
            let pool = pools.one(&session.cx, name).await.map_err(failed)?;
            text.push_str(&format!("{name}: {how}; `reseed status` tells how far it is\n"));
            all.push(json!({ "pool": pool, "begun": begun }));
            continue;
        }
        let mut told = 0.0;
        let tell = |scan: &Scan| {
            let percent = scan.percent.unwrap_or(0.0);
            if percent >= told + 10.0 {
                told = percent;
                crate::complain(&format!("{name}: {percent:.0} %"));
            }
        };
        let pool = pools.follow(&session.cx, name, tell).await.map_err(failed)?;
        let scan = pool
            .scan
            .as_ref()
            .filter(|scan| scan.state == ScanState::Finished);
        let (mood, words) = match scan {
            _ if pool.data_errors.is_some_and(|count| count > 0) => (
                Mood::Bad,
                "damaged beyond repair: `zpool status -v` names the files".to_owned(),
            ),
            _ if pool.data_errors.is_none() => (
                Mood::Bad,
                "unknown whether data is damaged: the list of damaged files can't be read; see `zpool status -v`".to_owned(),
            ),
            None => (Mood::Warn, "it was stopped before its end".to_owned()),
            Some(scan) if scan.errors.is_none_or(|errors| errors > 0) => {
                (Mood::Bad, "it found errors that it could not repair".to_owned())
            }
            Some(scan) => {
                let repaired = scan.repaired.as_deref().unwrap_or("0B");
                (Mood::Good, format!("whole; {repaired} repaired"))
            }
        };
        exit = exit.max(match mood {
            Mood::Good | Mood::Dim => Exit::Ok,
            Mood::Warn => Exit::Partial,
            Mood::Bad => Exit::Failed,
        });
        text.push_str(&format!(
            "{name}: {}\n",
            session.ui.paint(mood, &printable(&words))
        ));
        all.push(json!({ "pool": pool, "begun": begun }));
    }
    Ok(Answer::new(&json!({ "scrubs": all }), text, exit))
}
