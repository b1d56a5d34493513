//! restic's keep rules, exactly.
//!
//! Source: `ApplyPolicy`, `GroupSnapshots` and `ParseDuration` in restic 0.19 (github.com/restic/restic). Within each
//! group, newest first: a snapshot is kept when it is the first of its hour (day, ISO week, month, year) and that rule
//! has some left; the group's oldest one also when the rule has some left, so that the history is as long as it can
//! be. `keep-within` counts from the group's newest snapshot that is not in the future. `-1` keeps all.
//!
//! Not as in restic: hours and days are those of one given time zone, where restic takes the offset that was recorded
//! with each snapshot; and the guards of [`retention`](super) stand above.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{KeepReason, Point, RemoveReason, Verdict};

/// How many to keep under one rule: a number, or -1 for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "i64", into = "i64")]
#[schemars(with = "i64", extend("minimum" = -1))]
pub enum Count {
    /// So many; 0 is no rule.
    Newest(u32),
    /// All.
    All,
}

impl TryFrom<i64> for Count {
    type Error = String;
    fn try_from(number: i64) -> Result<Self, String> {
        match (number, u32::try_from(number)) {
            (-1, _) => Ok(Self::All),
            (_, Ok(number)) => Ok(Self::Newest(number)),
            _ => Err(format!(
                "{number} is not a number of points to keep: 0 or more, or -1 for all"
            )),
        }
    }
}

impl From<Count> for i64 {
    fn from(count: Count) -> Self {
        match count {
            Count::Newest(number) => Self::from(number),
            Count::All => -1,
        }
    }
}

/// A duration in calendar units, as `1y5m7d2h`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^\\s*([0-9]+[ymdh])*\\s*$"))]
pub struct Within {
    /// Years.
    pub years: u32,
    /// Months.
    pub months: u32,
    /// Days.
    pub days: u32,
    /// Hours.
    pub hours: u32,
}

impl Within {
    fn is_zero(self) -> bool {
        self == Self::default()
    }

    /// The moment this long before `latest`: years, months and days by the calendar of the zone, as Go's `AddDate`
    /// does it (one month before 31 March is 3 March, "31 February"), then hours of 3,600 seconds.
    fn before(self, latest: Timestamp, zone: &TimeZone) -> Timestamp {
        let local = latest.to_zoned(zone.clone());
        self.calendar(local.datetime())
            .and_then(|then| zone.to_ambiguous_timestamp(then).compatible().ok())
            .and_then(|then| {
                then.checked_sub(SignedDuration::from_hours(i64::from(self.hours)))
                    .ok()
            })
            // Longer ago than dates go.
            .unwrap_or(Timestamp::MIN)
    }

    fn calendar(self, from: DateTime) -> Option<DateTime> {
        let months = i64::from(from.year()) * 12 + i64::from(from.month())
            - 1
            - i64::from(self.years) * 12
            - i64::from(self.months);
        let year = i16::try_from(months.div_euclid(12)).ok()?;
        let month = i8::try_from(months.rem_euclid(12) + 1).ok()?;
        let first = Date::new(year, month, 1).ok()?;
        let days = i64::from(from.day()) - 1 - i64::from(self.days);
        let date = first.checked_add(Span::new().try_days(days).ok()?).ok()?;
        Some(date.to_datetime(from.time()))
    }
}

impl FromStr for Within {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text:?} is not a duration: {why}; write it like 1y5m7d2h");
        let mut within = Self::default();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit())
                .ok_or_else(|| wrong("a unit is missing"))?;
            let number: u32 = rest[..digits]
                .parse()
                .map_err(|_| wrong("a number is missing or too large"))?;
            let unit = match rest.as_bytes()[digits] {
                b'y' => &mut within.years,
                b'm' => &mut within.months,
                b'd' => &mut within.days,
                b'h' => &mut within.hours,
                _ => return Err(wrong("the units are y, m, d and h")),
            };
            *unit = number;
            rest = &rest[digits + 1..];
        }
        Ok(within)
    }
}

impl TryFrom<String> for Within {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Within> for String {
    fn from(within: Within) -> Self {
        within.to_string()
    }
}

impl fmt::Display for Within {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, unit) in [
            (self.years, 'y'),
            (self.months, 'm'),
            (self.days, 'd'),
            (self.hours, 'h'),
        ] {
            if number != 0 {
                write!(f, "{number}{unit}")?;
            }
        }
        Ok(())
    }
}

/// What makes two snapshots belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GroupBy {
    /// The same host.
    Host,
    /// The same paths.
    Paths,
    /// The same tags.
    Tags,
}

/// The keep rules. What none of them wants goes; without any of them nothing goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Policy {
    /// The newest so many.
    pub keep_last: Count,
    /// The newest of each of so many hours that have one.
    pub keep_hourly: Count,
    /// The newest of each of so many days that have one.
    pub keep_daily: Count,
    /// The newest of each of so many ISO weeks that have one.
    pub keep_weekly: Count,
    /// The newest of each of so many months that have one.
    pub keep_monthly: Count,
    /// The newest of each of so many years that have one.
    pub keep_yearly: Count,
    /// Everything so long before the newest.
    pub keep_within: Within,
    /// The newest of each hour so long before the newest.
    pub keep_within_hourly: Within,
    /// The newest of each day so long before the newest.
    pub keep_within_daily: Within,
    /// The newest of each ISO week so long before the newest.
    pub keep_within_weekly: Within,
    /// The newest of each month so long before the newest.
    pub keep_within_monthly: Within,
    /// The newest of each year so long before the newest.
    pub keep_within_yearly: Within,
    /// What has all tags of one of these lists; an empty tag stands for having none.
    pub keep_tags: Vec<Vec<String>>,
    /// What the rules are counted by. restic's own default is host and paths; a path that changes with each snapshot
    /// then makes a group of every snapshot, and none ever goes.
    pub group_by: BTreeSet<GroupBy>,
    /// Whose hours, days and weeks: an IANA name. Without it UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<Zone>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            keep_last: Count::Newest(0),
            keep_hourly: Count::Newest(0),
            keep_daily: Count::Newest(0),
            keep_weekly: Count::Newest(0),
            keep_monthly: Count::Newest(0),
            keep_yearly: Count::Newest(0),
            keep_within: Within::default(),
            keep_within_hourly: Within::default(),
            keep_within_daily: Within::default(),
            keep_within_weekly: Within::default(),
            keep_within_monthly: Within::default(),
            keep_within_yearly: Within::default(),
            keep_tags: Vec::new(),
            group_by: BTreeSet::from([GroupBy::Host, GroupBy::Tags]),
            time_zone: None,
        }
    }
}

impl Policy {
    /// Whether there is no keep rule. (restic's `Empty`: how snapshots are grouped is no rule.)
    pub fn is_empty(&self) -> bool {
        let rules = Self {
            group_by: BTreeSet::new(),
            time_zone: None,
            ..self.clone()
        };
        rules
            == Self {
                group_by: BTreeSet::new(),
                ..Self::default()
            }
    }
}

/// A time zone by its IANA name (or a POSIX rule), checked when it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Zone {
    name: String,
    zone: TimeZone,
}

impl Zone {
    /// A zone that the caller has at hand.
    pub fn new(name: impl Into<String>, zone: TimeZone) -> Self {
        Self {
            name: name.into(),
            zone,
        }
    }
}

impl TryFrom<String> for Zone {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        if name == "UTC" {
            // A bare machine has no zone database, and this one needs none.
            return Ok(Self {
                name,
                zone: TimeZone::UTC,
            });
        }
        let zone = TimeZone::get(&name).or_else(|_| TimeZone::posix(&name));
        let zone =
            zone.map_err(|error| format!("{name:?} is not a time zone this machine knows: {error}"))?;
        Ok(Self { name, zone })
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.name
    }
}

/// The calendar unit of a rule.
#[derive(Debug, Clone, Copy)]
enum Bucket {
    Each,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Bucket {
    /// A number that two snapshots share when they are in the same unit.
    fn of(self, local: DateTime, nr: usize) -> i64 {
        let (year, month, day) = (
            i64::from(local.year()),
            i64::from(local.month()),
            i64::from(local.day()),
        );
        match self {
            Self::Each => i64::try_from(nr).unwrap_or(i64::MAX),
            Self::Hour => year * 1_000_000 + month * 10_000 + day * 100 + i64::from(local.hour()),
            Self::Day => year * 10_000 + month * 100 + day,
            Self::Week => {
                let week = local.date().iso_week_date();
                i64::from(week.year()) * 100 + i64::from(week.week())
            }
            Self::Month => year * 100 + month,
            Self::Year => year,
        }
    }
}

struct Rule {
    bucket: Bucket,
    words: String,
    /// What is left of a counted rule; `None` is all.
    left: Option<u32>,
    /// Snapshots at or before this moment are out of reach.
    after: Option<Timestamp>,
    last: Option<i64>,
}

fn rules(policy: &Policy, latest: Option<Timestamp>, zone: &TimeZone) -> Vec<Rule> {
    let counted = [
        (policy.keep_last, Bucket::Each, "last"),
        (policy.keep_hourly, Bucket::Hour, "hourly"),
        (policy.keep_daily, Bucket::Day, "daily"),
        (policy.keep_weekly, Bucket::Week, "weekly"),
        (policy.keep_monthly, Bucket::Month, "monthly"),
        (policy.keep_yearly, Bucket::Year, "yearly"),
    ];
    let within = [
        (policy.keep_within_hourly, Bucket::Hour, "hourly"),
        (policy.keep_within_daily, Bucket::Day, "daily"),
        (policy.keep_within_weekly, Bucket::Week, "weekly"),
        (policy.keep_within_monthly, Bucket::Month, "monthly"),
        (policy.keep_within_yearly, Bucket::Year, "yearly"),
    ];
    let counted = counted
        .into_iter()
        .filter(|(count, ..)| *count != Count::Newest(0))
        .map(|(count, bucket, words)| Rule {
            bucket,
            words: format!("{words} snapshot"),
            left: match count {
                Count::Newest(number) => Some(number),
                Count::All => None,
            },
            after: None,
            last: None,
        });
    let within =
        within
            .into_iter()
            .filter(|(within, ..)| !within.is_zero())
            .map(|(within, bucket, words)| Rule {
                bucket,
                words: format!("{words} within {within}"),
                left: None,
                after: latest.map(|latest| within.before(latest, zone)),
                last: None,
            });
    counted.chain(within).collect()
}

/// The places of each group's points, in the order of the points.
pub(super) fn groups(points: &[Point], policy: &Policy) -> Vec<Vec<usize>> {
    let by = |which: GroupBy| policy.group_by.contains(&which);
    let (host, paths, tags) = (by(GroupBy::Host), by(GroupBy::Paths), by(GroupBy::Tags));
    let mut places: HashMap<_, usize> = HashMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (at, point) in points.iter().enumerate() {
        let key = (
            host.then_some(&point.host),
            paths.then_some(&point.paths),
            tags.then_some(&point.tags),
        );
        let place = *places.entry(key).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[place].push(at);
    }
    groups
}

/// Points come newest first, and so do the verdicts.
pub(super) fn judge(points: &[Point], policy: &Policy, now: Timestamp) -> Vec<Verdict> {
    let zone = policy
        .time_zone
        .as_ref()
        .map_or(TimeZone::UTC, |zone| zone.zone.clone());
    let mut verdicts: Vec<Option<Verdict>> = Vec::new();
    verdicts.resize_with(points.len(), || None);
    for group in groups(points, policy) {
        let latest = group
            .iter()
            .map(|at| points[*at].created)
            .find(|created| *created < now);
        let within = (!policy.keep_within.is_zero())
            .then(|| latest.map(|latest| policy.keep_within.before(latest, &zone)));
        let mut rules = rules(policy, latest, &zone);
        for (nr, at) in group.iter().enumerate() {
            let oldest = nr + 1 == group.len();
            let reasons = reasons(&points[*at], nr, oldest, policy, &mut rules, within, &zone);
            verdicts[*at] = Some(match reasons.is_empty() {
                true => Verdict::Remove(RemoveReason::NoRule),
                false => Verdict::Keep(reasons),
            });
        }
    }
    // Every point is in exactly one group; if it were in none, it would stay.
    verdicts
        .into_iter()
        .map(|verdict| verdict.unwrap_or(Verdict::Keep(vec![KeepReason::NotManaged])))
        .collect()
}

fn reasons(
    point: &Point,
    nr: usize,
    oldest: bool,
    policy: &Policy,
    rules: &mut [Rule],
    within: Option<Option<Timestamp>>,
    zone: &TimeZone,
) -> Vec<KeepReason> {
    let mut reasons = Vec::new();
    let mut because = |rule: String| reasons.push(KeepReason::Rule { rule });
    for tags in policy.keep_tags.iter().filter(|tags| has_tags(point, tags)) {
        because(format!("has tags [{}]", tags.join(", ")));
    }
    // Without any snapshot in the past there is nothing to count from, and all are within.
    if within.is_some_and(|after| after.is_none_or(|after| point.created > after)) {
        because(format!("within {}", policy.keep_within));
    }
    if rules.is_empty() {
        return reasons;
    }
    let local = zone.to_datetime(point.created);
    for rule in rules {
        if rule.left == Some(0) || rule.after.is_some_and(|after| point.created <= after) {
            continue;
        }
        let value = Some(rule.bucket.of(local, nr));
        if value == rule.last && !oldest {
            continue;
        }
        because(if value == rule.last {
            format!("oldest {}", rule.words)
        } else {
            rule.words.clone()
        });
        rule.last = value;
        rule.left = rule.left.map(|left| left - 1);
    }
    reasons
}

fn has_tags(point: &Point, wanted: &[String]) -> bool {
    for tag in wanted {
        if tag.is_empty() && point.tags.is_empty() {
            return true;
        }
        if !point.tags.contains(tag) {
            return false;
        }
    }
    true
}
