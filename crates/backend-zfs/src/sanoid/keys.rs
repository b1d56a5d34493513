//! The keys that sanoid.conf may have, with sanoid's defaults, and what becomes of each when it is taken over.
//!
//! Source: `sanoid.defaults.conf` of sanoid 2.1 and 2.3, which is also sanoid's own list of allowed keys. The two differ
//! in `pre_pruning_script` alone, which 2.1 refuses.

/// What a value has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A whole number in this range.
    Number(u32, u32),
    /// One of sanoid's words for yes and no.
    Toggle,
    /// A toggle, or `zfs`.
    Recursive,
    /// An age of the monitoring plugin: `90m`.
    Age,
    /// Any text.
    Text,
}

/// What taking it over makes of a value that is not sanoid's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is in the configuration that comes out, or decides what is.
    Taken,
    /// It has no counterpart, and this is why.
    Left(&'static str),
}

/// A key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) default: &'static str,
    pub(super) shape: Shape,
    pub(super) fate: Fate,
}

const fn key(name: &'static str, default: &'static str, shape: Shape, fate: Fate) -> Key {
    Key {
        name,
        default,
        shape,
        fate,
    }
}

const MONITOR: Fate = Fate::Left("reseed alerts by rules of its own");
const SCRIPT: Fate = Fate::Left("reseed runs no scripts around snapshots");
const SCHEDULE: Fate =
    Fate::Left("reseed takes a snapshot when a period has passed since the newest one of its kind");
/// More than a hundred thousand of anything would never be pruned in a life, and no listing survives it.
const COUNT: Shape = Shape::Number(0, 100_000);

/// All of them, in the order of sanoid.defaults.conf.
pub(super) const KEYS: &[Key] = &[
    key("path", "", Shape::Text, Fate::Taken),
    key("recursive", "", Shape::Recursive, Fate::Taken),
    key("use_template", "", Shape::Text, Fate::Taken),
    key("process_children_only", "", Shape::Toggle, Fate::Taken),
    key("skip_children", "", Shape::Toggle, Fate::Taken),
    key("pre_snapshot_script", "", Shape::Text, SCRIPT),
    key("post_snapshot_script", "", Shape::Text, SCRIPT),
    key("pre_pruning_script", "", Shape::Text, SCRIPT),
    key("pruning_script", "", Shape::Text, SCRIPT),
    key("script_timeout", "5", Shape::Number(0, u32::MAX), SCRIPT),
    key("no_inconsistent_snapshot", "", Shape::Toggle, SCRIPT),
    key("force_post_snapshot_script", "", Shape::Toggle, SCRIPT),
    key("frequent_period", "15", Shape::Number(1, 59), Fate::Taken),
    key("autoprune", "yes", Shape::Toggle, Fate::Taken),
    key("frequently", "0", COUNT, Fate::Taken),
    key("hourly", "48", COUNT, Fate::Taken),
    key("daily", "90", COUNT, Fate::Taken),
    key("weekly", "0", COUNT, Fate::Taken),
    key("monthly", "6", COUNT, Fate::Taken),
    key("yearly", "0", COUNT, Fate::Taken),
    key("prune_defer", "0", Shape::Number(0, 100), Fate::Taken),
    key("autosnap", "1", Shape::Toggle, Fate::Taken),
    key("hourly_min", "0", Shape::Number(0, 59), SCHEDULE),
    key("daily_hour", "23", Shape::Number(0, 23), SCHEDULE),
    key("daily_min", "59", Shape::Number(0, 59), SCHEDULE),
    key("weekly_wday", "1", Shape::Number(0, 7), SCHEDULE),
    key("weekly_hour", "23", Shape::Number(0, 23), SCHEDULE),
    key("weekly_min", "30", Shape::Number(0, 59), SCHEDULE),
    key("monthly_mday", "1", Shape::Number(1, 31), SCHEDULE),
    key("monthly_hour", "0", Shape::Number(0, 23), SCHEDULE),
    key("monthly_min", "0", Shape::Number(0, 59), SCHEDULE),
    key("yearly_mon", "1", Shape::Number(1, 12), SCHEDULE),
    key("yearly_mday", "1", Shape::Number(1, 31), SCHEDULE),
    key("yearly_hour", "0", Shape::Number(0, 23), SCHEDULE),
    key("yearly_min", "0", Shape::Number(0, 59), SCHEDULE),
    key("monitor", "yes", Shape::Toggle, MONITOR),
    key("monitor_dont_warn", "no", Shape::Toggle, MONITOR),
    key("monitor_dont_crit", "no", Shape::Toggle, MONITOR),
    key("frequently_warn", "0", Shape::Age, MONITOR),
    key("frequently_crit", "0", Shape::Age, MONITOR),
    key("hourly_warn", "90m", Shape::Age, MONITOR),
    key("hourly_crit", "360m", Shape::Age, MONITOR),
    key("daily_warn", "28h", Shape::Age, MONITOR),
    key("daily_crit", "32h", Shape::Age, MONITOR),
    key("weekly_warn", "0", Shape::Age, MONITOR),
    key("weekly_crit", "0", Shape::Age, MONITOR),
    key("monthly_warn", "32d", Shape::Age, MONITOR),
    key("monthly_crit", "40d", Shape::Age, MONITOR),
    key("yearly_warn", "0", Shape::Age, MONITOR),
    key("yearly_crit", "0", Shape::Age, MONITOR),
    key("capacity_warn", "80", Shape::Number(0, 100), MONITOR),
    key("capacity_crit", "95", Shape::Number(0, 100), MONITOR),
];

/// The key of that name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// sanoid's words for yes and no. `Some(false)` for an empty text, which Perl takes for no. Any other text is yes to
/// sanoid, which nobody means.
pub(super) fn toggle(text: &str) -> Option<bool> {
    match text {
        "1" | "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "" | "0" | "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}
