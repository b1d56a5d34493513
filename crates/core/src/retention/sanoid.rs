//! sanoid's pruning rules, exactly, for snapshots with sanoid's names.
//!
//! Source: `prune_snapshots`, `getsnaps` and `check_prune_defer` in sanoid 2.3 (github.com/jimsalterjrs/sanoid). A
//! snapshot goes only if it is older than N periods of its type *and* more than N of its type exist; oldest first, each
//! type by itself. Its age is ZFS' `creation`; the time in the name is local and for people. A month is 31 days, a year
//! 365.25. With N = 0 every snapshot of the type goes.
//!
//! Not as in sanoid: a type that is not declared is left alone (sanoid's defaults fill it in), and the guards of
//! [`retention`](super) stand above. A point that a guard keeps counts as gone, as it does in sanoid where the destroy
//! fails.

use std::fmt;

use jiff::{Timestamp, Zoned};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{KeepReason, Point, RemoveReason, Verdict};

/// A type of snapshot: how often it is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Every `frequent_period` minutes.
    Frequently,
    /// Every hour.
    Hourly,
    /// Every day.
    Daily,
    /// Every week.
    Weekly,
    /// Every month.
    Monthly,
    /// Every year.
    Yearly,
}

impl Kind {
    /// All of them, shortest period first.
    pub const ALL: [Self; 6] = [
        Self::Frequently,
        Self::Hourly,
        Self::Daily,
        Self::Weekly,
        Self::Monthly,
        Self::Yearly,
    ];

    /// As it stands at the end of a snapshot's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Frequently => "frequently",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        }
    }

    /// Which type sanoid takes a snapshot of this name for: it begins with `autosnap`, ends in `ly`, and the type
    /// stands behind an underscore. A name with a clash suffix (`…dst_hourly`, `…_dst_hourly`) is no exception.
    /// `None` for everything sanoid would not prune.
    pub fn of_name(name: &str) -> Option<Self> {
        if !name.starts_with("autosnap") || !name.ends_with("ly") {
            return None;
        }
        // `m/.*_(\w*ly)/`: the last underscore behind which word characters reach an `ly`; of those the most.
        let word = name.rmatch_indices('_').find_map(|(at, _)| {
            let rest = &name[at + 1..];
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            rest[..end].rfind("ly").map(|ly| &rest[..ly + 2])
        })?;
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The name to take instead of one that exists already; none for what isn't one of ours, or is such a name itself.
    pub(crate) fn clashing(name: &str) -> Option<String> {
        let suffix = format!("_{}", Self::of_name(name)?);
        let time = name.strip_suffix(&suffix)?;
        (!time.ends_with("dst")).then(|| format!("{time}dst{suffix}"))
    }

    /// The name of a snapshot taken at this local time. `clash` when one of that name exists already, which happens in
    /// the hour that a clock change repeats.
    pub fn snapshot_name(self, at: &Zoned, clash: bool) -> String {
        let dst = if clash { "dst" } else { "" };
        format!(
            "autosnap_{}{dst}_{}",
            at.strftime("%Y-%m-%d_%H:%M:%S"),
            self.as_str()
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How many of each type. A type that is not given is not pruned at all; 0 prunes all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Those taken every `frequent_period` minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequently: Option<u32>,
    /// Hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hourly: Option<u32>,
    /// Days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daily: Option<u32>,
    /// Weeks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weekly: Option<u32>,
    /// Months of 31 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monthly: Option<u32>,
    /// Years of 365.25 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub yearly: Option<u32>,
    /// Minutes between two of type `frequently`; sanoid's default is 15.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequent_period: Option<u32>,
    /// Prune only while the pool is fuller than so many percent; 0 prunes always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prune_defer: Option<u8>,
}

impl Policy {
    /// Whether no type is declared.
    pub fn is_empty(&self) -> bool {
        Kind::ALL.into_iter().all(|kind| self.wanted(kind).is_none())
    }

    /// How many of a type are wanted.
    pub const fn wanted(&self, kind: Kind) -> Option<u32> {
        match kind {
            Kind::Frequently => self.frequently,
            Kind::Hourly => self.hourly,
            Kind::Daily => self.daily,
            Kind::Weekly => self.weekly,
            Kind::Monthly => self.monthly,
            Kind::Yearly => self.yearly,
        }
    }

    /// When the period of a type began that it is in now, by the local calendar: the hour, midnight, Monday, the first of the month or year;
    /// the last multiple of `frequent_period` minutes. In the hour that a clock change repeats there are two such hours.
    pub(crate) fn began(&self, kind: Kind, now: &Zoned) -> Timestamp {
        let floor = |seconds: i64| {
            let offset = i64::from(now.offset().seconds());
            let local = now.timestamp().as_second() + offset;
            Timestamp::from_second(local - local.rem_euclid(seconds) - offset).ok()
        };
        let midnight = |day: jiff::civil::Date| {
            let at = day.to_zoned(now.time_zone().clone());
            at.map(|at| at.timestamp()).ok()
        };
        let day = now.date();
        let began = match kind {
            Kind::Frequently => floor(60 * i64::from(self.frequent_period.unwrap_or(15).max(1))),
            Kind::Hourly => floor(3_600),
            Kind::Daily => midnight(day),
            Kind::Weekly => {
                let since = i64::from(day.weekday().to_monday_zero_offset());
                day.checked_sub(jiff::ToSpan::days(since)).ok().and_then(midnight)
            }
            Kind::Monthly => midnight(day.first_of_month()),
            Kind::Yearly => midnight(day.first_of_year()),
        };
        // Beyond what a calendar has: whatever there is, is of an earlier period.
        began.unwrap_or(now.timestamp())
    }

    /// A type's period in seconds.
    pub fn period(&self, kind: Kind) -> i64 {
        const DAY: i64 = 86_400;
        match kind {
            Kind::Frequently => 60 * i64::from(self.frequent_period.unwrap_or(15)),
            Kind::Hourly => 3_600,
            Kind::Daily => DAY,
            Kind::Weekly => 7 * DAY,
            Kind::Monthly => 31 * DAY,
            Kind::Yearly => 365 * DAY + DAY / 4,
        }
    }
}

/// Points come newest first, and so do the verdicts.
pub(super) fn judge(
    points: &[Point],
    policy: &Policy,
    now: Timestamp,
    percent_full: Option<u8>,
) -> Vec<Verdict> {
    if let Some(above_percent) = policy.prune_defer.filter(|limit| *limit > 0) {
        // Not knowing how full the pool is counts as not full: keeping is the safe side.
        if percent_full.is_none_or(|percent| percent <= above_percent) {
            let deferred = || Verdict::Keep(vec![KeepReason::PruneDeferred { above_percent }]);
            return points.iter().map(|_| deferred()).collect();
        }
    }
    let kinds: Vec<Option<Kind>> = points.iter().map(|point| Kind::of_name(&point.name)).collect();
    let mut exist = [0_u32; Kind::ALL.len()];
    for kind in kinds.iter().flatten() {
        exist[*kind as usize] += 1;
    }
    let mut verdicts: Vec<Verdict> = Vec::with_capacity(points.len());
    for (point, kind) in points.iter().zip(&kinds).rev() {
        let declared = kind.and_then(|kind| policy.wanted(kind).map(|wanted| (kind, wanted)));
        verdicts.push(match declared {
            None => Verdict::Keep(vec![KeepReason::NotManaged]),
            Some((kind, wanted)) => {
                let seconds = i64::from(wanted) * policy.period(kind);
                let left = &mut exist[kind as usize];
                if point.created.as_second() >= now.as_second() - seconds {
                    Verdict::Keep(vec![KeepReason::Young { kind, seconds }])
                } else if *left <= wanted {
                    Verdict::Keep(vec![KeepReason::NotEnough { kind, wanted }])
                } else {
                    *left -= 1;
                    Verdict::Remove(RemoveReason::Aged {
                        kind,
                        seconds,
                        wanted,
                    })
                }
            }
        });
    }
    verdicts.reverse();
    verdicts
}
