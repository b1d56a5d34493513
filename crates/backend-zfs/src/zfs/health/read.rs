//! What `zpool list` and `zpool status` answer. Pure.
//!
//! Times in the answer are local ones without a zone, as ctime(3) has them: they are read in this machine's zone.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::super::parse::BadOutput;
use super::{Device, PoolHealth, Scan, ScanFunction, ScanState};

/// Every imported pool, with exact numbers.
pub(super) const LIST: [&str; 4] = [
    "list",
    "-Hp",
    "-o",
    "name,health,size,allocated,free,fragmentation,capacity",
];

fn text(stdout: &[u8]) -> Result<&str, BadOutput> {
    std::str::from_utf8(stdout).map_err(|_| BadOutput("it is not UTF-8".to_owned()))
}

/// Reads the answer to [`LIST`].
pub(super) fn list(stdout: &[u8]) -> Result<Vec<PoolHealth>, BadOutput> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split('\t').collect();
        let [name, state, size, allocated, free, fragmentation, capacity] = words[..] else {
            return Err(BadOutput(format!("not a pool: {line:?}")));
        };
        if name.is_empty() || state.is_empty() {
            return Err(BadOutput(format!("not a pool: {line:?}")));
        }
        let mut pool = PoolHealth::not_imported(name);
        state.clone_into(&mut pool.state);
        // `-` of a pool that is suspended, and of fragmentation where it isn't known. A % behind it, as without `-p`, does no harm.
        pool.size = size.parse().ok();
        pool.allocated = allocated.parse().ok();
        pool.free = free.parse().ok();
        pool.fragmentation = fragmentation.trim_end_matches('%').parse().ok();
        pool.capacity = capacity.trim_end_matches('%').parse().ok();
        Ok(pool)
    };
    text(stdout)?.lines().map(line).collect()
}

/// Reads `zpool status -p` into the pools that were listed. One that it doesn't tell of is an error.
pub(super) fn status(stdout: &[u8], pools: &mut [PoolHealth]) -> Result<(), BadOutput> {
    let mut told = 0;
    for part in parts(text(stdout)?) {
        let Some(name) = part.field("pool") else {
            return Err(BadOutput("a pool without a name".to_owned()));
        };
        let Some(pool) = pools.iter_mut().find(|pool| pool.name == name) else {
            continue;
        };
        told += 1;
        if let Some(state) = part.field("state") {
            pool.state = state;
        }
        pool.status = part.field("status");
        pool.action = part.field("action");
        pool.scan = part.field("scan").and_then(|words| scan(&words));
        pool.data_errors = part.field("errors").and_then(|words| errors(&words));
        pool.troubled = part.lines("config").filter_map(device).collect();
    }
    match told == pools.len() {
        true => Ok(()),
        false => Err(BadOutput("zpool status doesn't tell of every pool".to_owned())),
    }
}

/// What is told of one pool: fields, each with the lines after it.
struct Part<'a>(Vec<(&'a str, Vec<&'a str>)>);

impl<'a> Part<'a> {
    /// A field's lines as one.
    fn field(&self, name: &str) -> Option<String> {
        let words: Vec<&str> = self
            .lines(name)
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        (!words.is_empty()).then(|| words.join(" "))
    }

    fn lines(&self, name: &str) -> impl Iterator<Item = &'a str> + use<'a, '_> {
        let found = self.0.iter().find(|(field, _)| *field == name);
        found.into_iter().flat_map(|(_, lines)| lines.iter().copied())
    }
}

/// Fields are right-aligned before a colon; what belongs to the one above begins with a tab.
fn parts(text: &str) -> Vec<Part<'_>> {
    let mut all: Vec<Part<'_>> = Vec::new();
    for line in text.lines() {
        let named = (!line.starts_with('\t'))
            .then(|| line.split_once(':'))
            .flatten()
            .filter(|(name, _)| name.trim().chars().all(|c| c.is_ascii_lowercase()));
        match named {
            Some((name, rest)) => {
                let name = name.trim();
                if name == "pool" {
                    all.push(Part(Vec::new()));
                }
                if let Some(part) = all.last_mut() {
                    part.0.push((name, vec![rest]));
                }
            }
            None => {
                if let Some((_, lines)) = all.last_mut().and_then(|part| part.0.last_mut()) {
                    lines.push(line);
                }
            }
        }
    }
    all
}

fn errors(words: &str) -> Option<u64> {
    if words.starts_with("No known data errors") {
        return Some(0);
    }
    let (number, rest) = words.split_once(' ')?;
    rest.starts_with("data error")
        .then(|| number.parse().ok())
        .flatten()
}

fn scan(words: &str) -> Option<Scan> {
    let (function, rest) = [
        ("scrub ", ScanFunction::Scrub),
        ("resilver ", ScanFunction::Resilver),
        ("resilvered ", ScanFunction::Resilver),
    ]
    .into_iter()
    .find_map(|(word, function)| Some((function, words.strip_prefix(word)?)))?;
    let mut scan = Scan {
        function,
        state: ScanState::Finished,
        at: None,
        errors: None,
        percent: None,
        repaired: None,
    };
    if let Some(rest) = rest.strip_prefix("in progress since ") {
        scan.state = ScanState::Running;
        scan.at = time(rest);
        scan.percent = percent(rest);
    } else if let Some(rest) = rest.strip_prefix("paused since ") {
        scan.state = ScanState::Paused;
        scan.at = time(rest);
        scan.percent = percent(rest);
    } else if let Some(rest) = rest.strip_prefix("canceled on ") {
        scan.state = ScanState::Canceled;
        scan.at = time(rest);
    } else {
        // "repaired 0B in 00:00:01 with 0 errors on Sun Nov 22 20:00:00 2026", and without "repaired" of a resilver.
        let rest = rest.strip_prefix("repaired ").unwrap_or(rest);
        let (repaired, rest) = rest.split_once(" in ")?;
        let (_, rest) = rest.split_once(" with ")?;
        let (count, rest) = rest.split_once(" errors on ")?;
        scan.repaired = Some(repaired.to_owned());
        scan.errors = Some(count.parse().ok()?);
        scan.at = time(rest);
    }
    Some(scan)
}

fn percent(words: &str) -> Option<f64> {
    let (before, _) = words.split_once("% done")?;
    before.split_whitespace().next_back()?.parse().ok()
}

/// As ctime(3) writes it: five words. Nothing where the zone has no such moment.
fn time(words: &str) -> Option<Timestamp> {
    let words: Vec<&str> = words.split_whitespace().take(5).collect();
    let local = DateTime::strptime("%a %b %d %H:%M:%S %Y", words.join(" ")).ok()?;
    Some(local.to_zoned(TimeZone::system()).ok()?.timestamp())
}

/// A device that isn't as it should be. `-p` gives exact numbers.
fn device(line: &str) -> Option<Device> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, state, read, write, checksum, ..] = words[..] else {
        return None;
    };
    let device = Device {
        name: name.to_owned(),
        state: state.to_owned(),
        read: read.parse().ok()?,
        write: write.parse().ok()?,
        checksum: checksum.parse().ok()?,
    };
    let fine = ["ONLINE", "AVAIL", "INUSE"].contains(&device.state.as_str());
    (!fine || device.read + device.write + device.checksum > 0).then_some(device)
}

#[cfg(test)]
mod tests;
