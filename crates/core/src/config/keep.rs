//! Which points stay in an off-site repository.

use std::time::Duration;

use serde::Serializer;

use super::decode::At;
use super::diagnostic::{Extra, Sink};
use super::file::{KeepFile, OffsiteFile, OffsiteType};
use super::units::format_duration;
use crate::retention::restic::{Count, Policy, Within};

/// Which points of a service stay in a repository: those that one of the rules wants. Never nothing at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Keep {
    /// All that are at most so much older than the newest.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "duration")]
    pub within: Option<Duration>,
    /// The newest so many.
    pub last: u32,
    /// The newest of each of so many hours that have one.
    pub hourly: u32,
    /// The newest of each of so many days that have one.
    pub daily: u32,
    /// The newest of each of so many weeks that have one.
    pub weekly: u32,
    /// The newest of each of so many months that have one.
    pub monthly: u32,
    /// The newest of each of so many years that have one.
    pub yearly: u32,
}

#[expect(clippy::ref_option, reason = "serde passes it so")]
fn duration<S: Serializer>(within: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&within.map(format_duration).unwrap_or_default())
}

impl Keep {
    fn of(file: &KeepFile) -> Self {
        Self {
            within: file.within.value().map(|lasting| lasting.0),
            last: file.last.value().map_or(0, |count| count.0),
            hourly: file.hourly.value().map_or(0, |count| count.0),
            daily: file.daily.value().map_or(0, |count| count.0),
            weekly: file.weekly.value().map_or(0, |count| count.0),
            monthly: file.monthly.value().map_or(0, |count| count.0),
            yearly: file.yearly.value().map_or(0, |count| count.0),
        }
    }

    /// As the rules that are planned by. Each dataset is planned by itself, so there is nothing to group by.
    pub fn policy(&self) -> Policy {
        let hours = |within: Duration| within.as_secs().div_ceil(3600);
        Policy {
            keep_last: Count::Newest(self.last),
            keep_hourly: Count::Newest(self.hourly),
            keep_daily: Count::Newest(self.daily),
            keep_weekly: Count::Newest(self.weekly),
            keep_monthly: Count::Newest(self.monthly),
            keep_yearly: Count::Newest(self.yearly),
            keep_within: Within {
                // A part of an hour keeps more, not less.
                hours: self
                    .within
                    .map_or(0, |within| u32::try_from(hours(within)).unwrap_or(u32::MAX)),
                ..Within::default()
            },
            group_by: std::collections::BTreeSet::new(),
            ..Policy::default()
        }
    }
}

/// Reports rules that keep nothing, and rules for an engine that removes nothing.
pub(crate) fn check(file: &OffsiteFile, at: &At<'_>, sink: &mut Sink<'_>) {
    let Some((rules, span)) = file.keep.given() else {
        return;
    };
    let here = at.key("keep", span);
    if matches!(file.kind.value(), Some(OffsiteType::Embedded)) {
        let message =
            format!("`{here}` is for the restic program: the embedded engine never removes anything");
        let hint = "write `type = \"restic\"`, or keep the rules on the machine that prunes the repository";
        sink.error(here, span, message, Extra::hint(hint));
    } else if Keep::of(rules).policy().is_empty() {
        let message = format!("`{here}` has no rule that keeps a point");
        let hint =
            "write at least one, as in `within = \"90d\"` or `daily = 14`; without `keep` all points stay";
        sink.error(here, span, message, Extra::hint(hint));
    }
}

/// The rules, where there are any.
pub(crate) fn keep(file: &OffsiteFile) -> Option<Keep> {
    file.keep.value().map(Keep::of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_an_hour_keeps_more() {
        let keep = Keep {
            within: Some(Duration::from_secs(90 * 86_400 + 1)),
            last: 3,
            hourly: 0,
            daily: 0,
            weekly: 0,
            monthly: 0,
            yearly: 0,
        };
        let policy = keep.policy();
        assert_eq!(policy.keep_within.to_string(), "2161h");
        assert_eq!(policy.keep_last, Count::Newest(3));
        assert!(!policy.is_empty() && policy.group_by.is_empty());
    }
}
