//! What restic says of locks: who has one, for how long, and which it can't read.

use jiff::SignedDuration;

use super::error::is_damage;
use crate::error::EngineError;
use crate::lock::LockHolder;
use crate::words::plain;

/// A lock that is there and can't be made sense of: since 0.15 restic ends at one, whatever it was to do. One that could not be fetched it
/// calls by the same name.
pub(super) fn of_lock(words: &str) -> Option<EngineError> {
    let (_, why) = words.split_once("invalid lock file:")?;
    let json = ["unexpected end of JSON", "cannot unmarshal", "cannot parse"];
    let is_none = is_damage(why) || json.iter().any(|by| why.contains(by));
    let id = why.split_once("<lock/").map_or("", |(_, rest)| rest);
    let id: String = id.chars().take_while(char::is_ascii_hexdigit).collect();
    is_none.then(|| EngineError::BadLock {
        id: if id.is_empty() {
            "with an unknown id".to_owned()
        } else {
            id
        },
        detail: plain(why.lines().next().unwrap_or_default()),
    })
}

/// From `repository is already locked exclusively by PID 4711 on host by user (UID 0, GID 0)`, `lock was created at …` and
/// `storage ID …`.
pub(super) fn holder(words: &str) -> LockHolder {
    let after = |prefix: &str| words.split_once(prefix).map(|(_, rest)| rest);
    let word = |text: &str| text.split_whitespace().next().unwrap_or_default().to_owned();
    let by = after(" by PID ").unwrap_or_default();
    let pid = word(by).parse().unwrap_or(0);
    let rest = by.split_once(" on ").map_or("", |(_, rest)| rest);
    let (host, who) = rest.split_once(" by ").unwrap_or((rest, ""));
    let who = who.split(" (UID").next().unwrap_or_default();
    LockHolder {
        who: if who.is_empty() {
            "somebody".to_owned()
        } else {
            plain(who)
        },
        host: if host.is_empty() {
            "an unknown host".to_owned()
        } else {
            plain(host)
        },
        pid,
        // The time is in the zone of whoever wrote it, which isn't told.
        since: None,
        age: after("lock was created at ")
            .and_then(|rest| rest.lines().next()?.split_once(" ("))
            .and_then(|(_, rest)| age(rest.split_once(" ago)")?.0)),
        id: after("storage ID ").map(word).unwrap_or_default(),
    }
}

/// The seconds of an age as Go writes it: `1h2m3.456s`, `302.223716ms`.
pub(super) fn age(text: &str) -> Option<u32> {
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (value, after) = rest.split_at(number);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let worth = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "µs" | "us" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += value.parse::<f64>().ok()? * worth;
        rest = after;
    }
    let seconds = SignedDuration::try_from_secs_f64(seconds).ok()?.as_secs();
    u32::try_from(seconds).ok().filter(|_| !text.is_empty())
}
