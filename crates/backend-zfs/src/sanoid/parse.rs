//! What sanoid prints, as data. Pure.
//!
//! sanoid exits with 0 whether snapshots were taken, refused, deferred or not; only its words tell. With `--verbose` it
//! announces each step on standard output before it tries it, and warns on standard error when it failed. A line that is
//! not known is kept, so that nothing it says is lost.

/// What one run did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Snapshots taken, in full.
    pub taken: Vec<String>,
    /// Snapshots pruned, in full; with `--readonly` those that would be.
    pub pruned: Vec<String>,
    /// Snapshots that could be neither taken nor pruned, in full.
    pub failed: Vec<String>,
    /// What sanoid put off, in its own words: the pool is not full enough, another sanoid holds the lock.
    pub deferred: Vec<String>,
    /// The other lines of its standard error.
    pub complaints: Vec<String>,
}

/// Reads both outputs of one run.
pub fn parse(stdout: &str, stderr: &str) -> Said {
    let mut said = Said::default();
    for line in stdout.lines().map(str::trim) {
        if let Some(snapshot) = line.strip_prefix("taking snapshot ") {
            said.taken.push(name(snapshot).to_owned());
        } else if let Some(snapshot) = line.strip_prefix("taking dst snapshot ") {
            // In the hour that a clock change repeats the plain name was there already, and this one takes its place.
            let snapshot = name(snapshot);
            if let Some((head, kind)) = snapshot.rsplit_once("dst_") {
                let first = format!("{head}_{kind}");
                said.taken.retain(|taken| *taken != first);
            }
            said.taken.push(snapshot.to_owned());
        } else if line.starts_with("INFO: deferring ") {
            if let Some((snapshot, _)) =
                (line.strip_prefix("INFO: deferring pruning of ")).and_then(|rest| rest.split_once(" - "))
            {
                said.pruned.retain(|pruned| pruned != snapshot);
            }
            said.deferred.push(line["INFO: ".len()..].to_owned());
        } else if let Some(snapshot) = line
            .strip_prefix("INFO: pruning ")
            .and_then(|rest| rest.strip_suffix("..."))
            .map(str::trim_end)
            .filter(|rest| rest.contains('@'))
        {
            said.pruned.push(snapshot.to_owned());
        }
    }
    for line in stderr.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let failed = failed_prune(line).or_else(|| failed_take(line));
        match failed {
            Some(snapshot) => {
                said.pruned.retain(|pruned| pruned != snapshot);
                said.taken.retain(|taken| taken != snapshot);
                said.failed.push(snapshot.to_owned());
                said.complaints.push(line.to_owned());
            }
            // Perl's own, once for every snapshot that begins with `autosnap` and has no type. sanoid leaves it alone.
            None if line.starts_with("Use of uninitialized value ") => {}
            None => said.complaints.push(line.to_owned()),
        }
    }
    said
}

fn name(rest: &str) -> &str {
    rest.strip_suffix(" (zfs recursive)").unwrap_or(rest)
}

/// `could not remove tank/a@x : 256 at …`
fn failed_prune(line: &str) -> Option<&str> {
    line.strip_prefix("could not remove ")?
        .split_once(" : ")
        .map(|(snapshot, _)| snapshot)
}

/// `CRITICAL ERROR: zfs snapshot -r tank/a@x failed, 256 at …`
fn failed_take(line: &str) -> Option<&str> {
    let (command, _) = line.strip_prefix("CRITICAL ERROR: ")?.rsplit_once(" failed, ")?;
    let (_, arguments) = command.split_once(" snapshot ")?;
    Some(arguments.strip_prefix("-r ").unwrap_or(arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Of sanoid 2.1 on Debian 12.
    const TAKE: &str = "INFO: cache expired - updating from zfs list.\nINFO: taking snapshots...\n\
        taking snapshot tank/a@autosnap_2026-10-25_02:30:00_hourly\n\
        taking dst snapshot tank/a@autosnap_2026-10-25_02:30:00dst_hourly\n\
        taking snapshot tank@autosnap_2026-10-25_02:30:00_daily (zfs recursive)\n\
        taking snapshot tank/b@autosnap_2026-10-25_02:30:00_hourly\n";
    const TAKE_ERRORS: &str = "cannot create snapshot 'tank/a@autosnap_2026-10-25_02:30:00_hourly': dataset already exists\n\
        cannot create snapshot 'tank/b@autosnap_2026-10-25_02:30:00_hourly': out of space\n\
        CRITICAL ERROR: zfs snapshot tank/b@autosnap_2026-10-25_02:30:00_hourly failed, 256 at /usr/sbin/sanoid line 616.\n";

    #[test]
    fn what_was_taken_is_what_did_not_fail() {
        let said = parse(TAKE, TAKE_ERRORS);
        assert_eq!(
            said.taken,
            [
                "tank/a@autosnap_2026-10-25_02:30:00dst_hourly",
                "tank@autosnap_2026-10-25_02:30:00_daily"
            ]
        );
        assert_eq!(said.failed, ["tank/b@autosnap_2026-10-25_02:30:00_hourly"]);
        assert_eq!(said.complaints.len(), 3);
    }

    #[test]
    fn what_was_pruned_is_what_was_neither_refused_nor_put_off() {
        let stdout = "INFO: pruning snapshots...\nINFO: deferring snapshot pruning (tank/c)...\n\
            INFO: pruning tank/a@autosnap_1_daily ... \nINFO: pruning tank/a@autosnap_2_daily ... \n\
            INFO: pruning tank/b@autosnap_3_daily ... \n\
            INFO: deferring pruning of tank/b@autosnap_3_daily - tank/b is currently in zfs send or receive.\n\
            INFO: removing destroyed snapshots from cache.\n";
        let stderr = "cannot destroy 'tank/a@autosnap_2_daily': snapshot is busy\n\
            could not remove tank/a@autosnap_2_daily : 256 at /usr/sbin/sanoid line 343.\n";
        let said = parse(stdout, stderr);
        assert_eq!(said.pruned, ["tank/a@autosnap_1_daily"]);
        assert_eq!(said.failed, ["tank/a@autosnap_2_daily"]);
        assert_eq!(said.deferred.len(), 2);
    }
}
