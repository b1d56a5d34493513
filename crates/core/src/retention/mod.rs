//! Which recovery points to keep: inventory, policy and a moment in, a plan out.
//!
//! Promises: nothing is read or deleted here; the same input gives the same plan; planning again at the same moment
//! after carrying out a plan removes nothing more; every point is in the plan exactly once, with its reasons. It knows
//! nothing about how a point is removed, and whoever removes checks the point's id again.
//!
//! Two sets of rules: [`sanoid`]'s for snapshots, [`restic`]'s for an off-site repository. Above both stand the guards,
//! which only ever keep:
//! - a service that is unseeded loses nothing;
//! - a held point, the base of a lineage and the last good point stay;
//! - the newest point of each group stays, and so does the newest one that is not dated in the future;
//! - a policy without rules removes nothing.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub mod restic;
pub mod sanoid;
#[cfg(test)]
mod tests;

/// A recovery point as far as its age matters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// What its source calls it: `autosnap_2026-11-22_20:33:00_hourly`, a restic id.
    pub name: String,
    /// Its identity: a guid, a full restic id. Checked before anything is removed.
    pub id: String,
    /// When it was taken: for ZFS what was written on it when it was (`reseed:taken`), or its `creation`; never the time in its name.
    pub created: Timestamp,
    /// Who holds it.
    #[serde(default)]
    pub holds: Vec<String>,
    /// The next replication is incremental from it. For whoever has no bookmarks; where ZFS replicates, a bookmark stands for a base that goes.
    #[serde(default)]
    pub lineage_base: bool,
    /// The newest one that was verified, or the last one before a service became unseeded.
    #[serde(default)]
    pub last_good: bool,
    /// Its tags, for restic's rules.
    #[serde(default)]
    pub tags: BTreeSet<String>,
    /// Its host, for restic's rules.
    #[serde(default)]
    pub host: String,
    /// The paths in it, for restic's rules.
    #[serde(default)]
    pub paths: BTreeSet<String>,
}

impl Point {
    /// A point without holds, flags or tags.
    pub fn new(name: impl Into<String>, id: impl Into<String>, created: Timestamp) -> Self {
        Self {
            name: name.into(),
            id: id.into(),
            created,
            holds: Vec::new(),
            lineage_base: false,
            last_good: false,
            tags: BTreeSet::new(),
            host: String::new(),
            paths: BTreeSet::new(),
        }
    }
}

/// All points of one dataset in one place, and what is known about their service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The points, in any order.
    pub points: Vec<Point>,
    /// The service started without its data, or its data shrank suspiciously: its older points are what is left.
    pub unseeded: bool,
    /// How full the pool is, in percent, for [`sanoid::Policy::prune_defer`].
    #[serde(default)]
    pub pool_percent_full: Option<u8>,
}

/// Which rules apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "rules", rename_all = "kebab-case")]
pub enum Policy {
    /// So many of each type, and none younger than that many periods.
    Sanoid(sanoid::Policy),
    /// The newest of so many last hours, days, weeks, ….
    Restic(restic::Policy),
}

impl Policy {
    /// Whether it has no rule, and so removes nothing.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Sanoid(policy) => policy.is_empty(),
            Self::Restic(policy) => policy.is_empty(),
        }
    }
}

/// Why a point stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum KeepReason {
    /// The service is unseeded: nothing of it ages out.
    Unseeded,
    /// There are no rules.
    NoPolicy,
    /// It is the newest of its group.
    Newest,
    /// It is held.
    Held {
        /// By whom.
        by: Vec<String>,
    },
    /// The next replication is incremental from it.
    LineageBase,
    /// It is the last one known to be good.
    LastGood,
    /// No rule is about it: another tool's or a person's snapshot.
    NotManaged,
    /// The pool is not full enough for pruning to begin.
    PruneDeferred {
        /// The pool must be fuller than so many percent.
        above_percent: u8,
    },
    /// It is younger than its type's age.
    Young {
        /// Its type.
        kind: sanoid::Kind,
        /// The age in seconds.
        seconds: i64,
    },
    /// There are no more of its type than are wanted.
    NotEnough {
        /// Its type.
        kind: sanoid::Kind,
        /// How many are wanted.
        wanted: u32,
    },
    /// A keep rule of restic's wants it.
    Rule {
        /// In restic's words: `daily snapshot`.
        rule: String,
    },
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unseeded => f.write_str("the service is unseeded"),
            Self::NoPolicy => f.write_str("no retention is declared"),
            Self::Newest => f.write_str("newest"),
            Self::Held { by } => write!(f, "held by {}", by.join(", ")),
            Self::LineageBase => f.write_str("base of the next replication"),
            Self::LastGood => f.write_str("last known good"),
            Self::NotManaged => f.write_str("not taken under this policy"),
            Self::PruneDeferred { above_percent } => write!(f, "pool is not above {above_percent} %"),
            Self::Young { kind, seconds } => write!(f, "{kind} younger than {}", Age(*seconds)),
            Self::NotEnough { kind, wanted } => write!(f, "not more than {wanted} {kind}"),
            Self::Rule { rule } => f.write_str(rule),
        }
    }
}

/// Why a point may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RemoveReason {
    /// It is older than its type's age, and there are more of its type than wanted.
    Aged {
        /// Its type.
        kind: sanoid::Kind,
        /// The age in seconds.
        seconds: i64,
        /// How many are wanted.
        wanted: u32,
    },
    /// No keep rule wants it.
    NoRule,
}

impl fmt::Display for RemoveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aged {
                kind,
                seconds,
                wanted,
            } => {
                write!(
                    f,
                    "{kind} older than {}, and more than {wanted} of them",
                    Age(*seconds)
                )
            }
            Self::NoRule => f.write_str("no rule keeps it"),
        }
    }
}

/// Seconds for people.
struct Age(i64);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            s if s >= 172_800 => write!(f, "{} days", s / 86_400),
            s if s >= 7_200 => write!(f, "{} hours", s / 3_600),
            s => write!(f, "{} minutes", s / 60),
        }
    }
}

/// A point that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The point.
    pub point: Point,
    /// Every reason for it.
    pub reasons: Vec<KeepReason>,
}

/// A point that may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The point.
    pub point: Point,
    /// Why.
    pub reason: RemoveReason,
}

/// What to keep and what to remove, both newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The moment it was made for.
    pub now: Timestamp,
    /// What stays.
    pub keep: Vec<Kept>,
    /// What may go.
    pub remove: Vec<Removed>,
}

/// One line per point that goes, then how many stay. With `{:#}` also one per point that stays.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for removed in &self.remove {
            writeln!(
                f,
                "remove  {}  {}  ({})",
                removed.point.created, removed.point.name, removed.reason
            )?;
        }
        if f.alternate() {
            for kept in &self.keep {
                let reasons: Vec<String> = kept.reasons.iter().map(ToString::to_string).collect();
                writeln!(
                    f,
                    "keep    {}  {}  ({})",
                    kept.point.created,
                    kept.point.name,
                    reasons.join("; ")
                )?;
            }
        }
        write!(f, "{} to remove, {} to keep", self.remove.len(), self.keep.len())
    }
}

/// What a set of rules says about one point, before the guards.
enum Verdict {
    Keep(Vec<KeepReason>),
    Remove(RemoveReason),
}

/// Plans without doing anything.
pub fn plan(inventory: Inventory, policy: &Policy, now: Timestamp) -> Plan {
    let Inventory {
        mut points,
        unseeded,
        pool_percent_full,
    } = inventory;
    // Names break ties, so that the order in which a listing came does not matter.
    points.sort_by(|a, b| (b.created, &b.name, &b.id).cmp(&(a.created, &a.name, &a.id)));

    let verdicts = if policy.is_empty() {
        points
            .iter()
            .map(|_| Verdict::Keep(vec![KeepReason::NoPolicy]))
            .collect()
    } else {
        match policy {
            Policy::Sanoid(policy) => sanoid::judge(&points, policy, now, pool_percent_full),
            Policy::Restic(policy) => restic::judge(&points, policy, now),
        }
    };
    let newest = match policy {
        Policy::Sanoid(_) => newest_of(points.iter().enumerate(), now),
        Policy::Restic(policy) => restic::groups(&points, policy)
            .into_iter()
            .flat_map(|group| newest_of(group.into_iter().map(|at| (at, &points[at])), now))
            .collect(),
    };

    let mut plan = Plan {
        now,
        keep: Vec::new(),
        remove: Vec::new(),
    };
    for (at, (point, verdict)) in points.into_iter().zip(verdicts).enumerate() {
        let mut reasons = guards(&point, unseeded, newest.contains(&at));
        match verdict {
            Verdict::Remove(reason) if reasons.is_empty() => plan.remove.push(Removed { point, reason }),
            Verdict::Remove(_) => plan.keep.push(Kept { point, reasons }),
            Verdict::Keep(more) => {
                reasons.extend(more);
                plan.keep.push(Kept { point, reasons });
            }
        }
    }
    plan
}

/// Of points that come newest first: the newest, and the newest that a wrong clock has not put into the future.
fn newest_of<'a>(points: impl Iterator<Item = (usize, &'a Point)>, now: Timestamp) -> BTreeSet<usize> {
    let mut newest = BTreeSet::new();
    for (at, point) in points {
        if newest.is_empty() || point.created <= now {
            newest.insert(at);
        }
        if point.created <= now {
            break;
        }
    }
    newest
}

fn guards(point: &Point, unseeded: bool, newest: bool) -> Vec<KeepReason> {
    let mut reasons = Vec::new();
    if unseeded {
        reasons.push(KeepReason::Unseeded);
    }
    if newest {
        reasons.push(KeepReason::Newest);
    }
    if !point.holds.is_empty() {
        reasons.push(KeepReason::Held {
            by: point.holds.clone(),
        });
    }
    if point.lineage_base {
        reasons.push(KeepReason::LineageBase);
    }
    if point.last_good {
        reasons.push(KeepReason::LastGood);
    }
    reasons
}
