//! What limits a dataset's space, or keeps some for it: quotas and reservations.
//!
//! They are settings of the service, and a replica has none of them: its pool is another one, and may have no room for a
//! reservation. So what the dataset had when it was last sent is written down on the replica, and comes back with the data. What is
//! declared of the dataset stands above that. None of it is worth a restore: what can't be had is told.

use std::collections::BTreeMap;

use reseed_core::Context;
use reseed_core::error::{Effect, Error};
use reseed_core::names::DatasetName;

use super::argv;
use super::error::FromFault;
use super::tool::{Tool, not_cancelled};

/// The properties. The first two limit, the others keep.
pub(crate) const PROPERTIES: [&str; 4] = ["quota", "refquota", "reservation", "refreservation"];

/// Their values in bytes, 0 for none, in this order.
pub(crate) type Space = [u64; PROPERTIES.len()];

/// What is wanted of them, as values for `zfs set`.
pub(crate) type Wanted = BTreeMap<&'static str, String>;

/// The record's text for a property: one word, for syncoid takes its options apart at spaces.
pub(crate) fn write(space: &Space) -> String {
    let set = PROPERTIES.iter().zip(space).filter(|(_, bytes)| **bytes > 0);
    let words: Vec<String> = set.map(|(name, bytes)| format!("{name}={bytes}")).collect();
    if words.is_empty() {
        return "none".to_owned();
    }
    words.join(",")
}

/// What a replica is to have instead of what its dataset has. `receive -x` keeps them out of a new dataset only: with an increment
/// they come along and count, unless the replica has a value of its own (OpenZFS 2.3.2; `zfs_setup_cmdline_props`).
pub(crate) fn none(space: &Space) -> impl Iterator<Item = (&'static str, &'static str)> {
    let set = PROPERTIES.into_iter().zip(*space).filter(|(_, bytes)| *bytes > 0);
    set.map(|(name, _)| (name, "none"))
}

/// What a record says. Anything that isn't of one counts for nothing.
pub(crate) fn read(text: &str) -> Wanted {
    let word = |word: &str| {
        let (name, bytes) = word.split_once('=')?;
        let name = PROPERTIES.into_iter().find(|known| *known == name)?;
        let bytes: u64 = bytes.parse().ok()?;
        (bytes > 0).then(|| (name, bytes.to_string()))
    };
    // Earlier records have spaces.
    text.split([' ', ',']).filter_map(word).collect()
}

/// Gives a dataset that came back what is wanted. Answers with what couldn't be had.
pub(crate) async fn come_back<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    dataset: &DatasetName,
    wanted: &Wanted,
) -> Result<Vec<String>, Error<K>> {
    let mut warnings = Vec::new();
    for (property, value) in wanted
        .iter()
        .filter(|(_, value)| !matches!(value.as_str(), "0" | "none"))
    {
        let what = format!("{property}={value} can't be had for what comes back");
        let args = argv::set(dataset, &[(property, value)]);
        if let Err(error) = tool.change::<K>(cx, args, what, Effect::StagingOnly).await {
            not_cancelled::<K>(cx)?;
            warnings.push(error.to_string());
        }
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_read_and_nothing_else() {
        assert_eq!(write(&[0; 4]), "none");
        assert_eq!(none(&[0; 4]).count(), 0);
        let limited: Vec<_> = none(&[0, 7, 0, 1]).collect();
        assert_eq!(limited, [("refquota", "none"), ("refreservation", "none")]);
        assert_eq!(read("none"), Wanted::new());
        let text = write(&[1 << 30, 0, 5, u64::MAX]);
        assert_eq!(
            text,
            "quota=1073741824,reservation=5,refreservation=18446744073709551615"
        );
        assert_eq!(read(&text).len(), 3);
        assert_eq!(read(&text), read(&text.replace(',', " ")));
        assert_eq!(read(&text)["quota"], "1073741824");
        for odd in [
            "",
            "-",
            "quota",
            "quota=",
            "quota=-1",
            "quota=1G",
            "mountpoint=/",
            "quota=5\nx",
            "quota=0",
        ] {
            assert_eq!(read(odd), Wanted::new(), "{odd:?}");
        }
    }
}
