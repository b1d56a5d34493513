//! Whether a pool can be worked with.
//!
//! The kernel's own file says it without a process and without waiting: a suspended pool hangs whoever reads its data,
//! so it is asked before a directory is looked at. DEGRADED is available.

use std::collections::BTreeMap;

use reseed_core::Context;

use super::tool::Tool;
use super::{argv, parse};

/// What is known of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pool {
    /// Imported, and it answers.
    Usable,
    /// Not imported, suspended, faulted: why.
    Unavailable(String),
    /// It can't be told.
    Unknown(String),
}

fn judged(name: &str, health: &str) -> Pool {
    match health {
        "ONLINE" | "DEGRADED" => Pool::Usable,
        other => Pool::Unavailable(format!("pool {name} is {other}")),
    }
}

/// What this machine's kernel says; none where it says nothing, or is asked about another machine.
pub(crate) fn by_kernel(tool: &Tool, name: &str) -> Option<Pool> {
    if !tool.is_local() {
        return None;
    }
    let health = std::fs::read_to_string(format!("/proc/spl/kstat/zfs/{name}/state")).ok()?;
    Some(judged(name, health.trim_end()))
}

/// What `zpool list` says of each, in one call.
pub(crate) async fn by_tool<'a>(
    tool: &Tool,
    cx: &Context,
    names: impl IntoIterator<Item = &'a str>,
) -> BTreeMap<String, Pool> {
    let answer = tool.ask_pool(cx, argv::list_pools()).await;
    let listed = match &answer {
        Ok(output) if output.exit.success() => match output.whole_stdout() {
            Ok(bytes) => parse::pools(bytes).map_err(|bad| bad.to_string()),
            Err(error) => Err(error.to_string()),
        },
        Ok(output) => Err(output.stderr.text().trim_end().to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let of = |name: &str| match &listed {
        Err(why) => Pool::Unknown(format!("whether pool {name} is there can't be told: {why}")),
        Ok(all) => match all.iter().find(|(pool, _)| pool == name) {
            Some((_, health)) => judged(name, health),
            None => Pool::Unavailable(format!("pool {name} is not imported")),
        },
    };
    names
        .into_iter()
        .map(|name| (name.to_owned(), of(name)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degraded_is_available_and_nothing_else_below_it() {
        assert_eq!(judged("tank", "ONLINE"), Pool::Usable);
        assert_eq!(judged("tank", "DEGRADED"), Pool::Usable);
        for bad in ["SUSPENDED", "FAULTED", "UNAVAIL", "REMOVED", "OFFLINE", ""] {
            assert!(matches!(judged("tank", bad), Pool::Unavailable(_)), "{bad}");
        }
    }
}
