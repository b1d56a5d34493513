//! What lies between a snapshot and what is live (S16): how much was written, and where it would be kept. Asks, and
//! changes nothing.

use reseed_core::Context;
use reseed_core::error::{StoreError, StoreKind};
use reseed_core::point::{SnapshotRef, Target};
use reseed_core::store::Since;

use super::parse::{BadOutput, text};
use super::tool::Tool;
use super::{argv, aside, list};

/// Tells it of one of a target's own snapshots.
pub(crate) async fn since(
    tool: &Tool,
    cx: &Context,
    target: &Target,
    snapshot: &SnapshotRef,
) -> Result<Since, StoreError> {
    let full = format!("{}@{}", snapshot.dataset, snapshot.name);
    if snapshot.dataset != target.dataset {
        let what = format!("{full} is no snapshot of {}", target.dataset);
        return Err(StoreError::new(StoreKind::NotFound, what));
    }
    let found = list::these::<StoreKind>(tool, cx, [(&snapshot.dataset, &snapshot.name)]).await?;
    if !found.iter().any(|one| one.guid == snapshot.guid) {
        let what = format!("there is no snapshot {full} with guid {}", snapshot.guid);
        return Err(list::not_found(what));
    }
    let what = format!("can't tell how much was written since {full}");
    let asked = argv::get_written(&snapshot.dataset, &snapshot.name);
    Ok(Since {
        written: Some(tool.read(cx, asked, &what, written).await?),
        kept_as: aside::free_name(tool, cx, target).await?.to_string(),
    })
}

fn written(stdout: &[u8]) -> Result<u64, BadOutput> {
    let text = text(stdout)?;
    text.trim_end()
        .parse()
        .map_err(|_| BadOutput(format!("not a size: {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_in_a_whole_line() {
        let recorded = include_bytes!("fixtures/written-2.1.11.stdout");
        assert_eq!(written(recorded).unwrap(), 21_000_192);
        assert_eq!(written(b"0\n").unwrap(), 0);
        assert_eq!(written(b"18446744073709551615\n").unwrap(), u64::MAX);
        for bad in [&b""[..], b"-\n", b"1.2M\n", b"12", b"-1\n"] {
            assert!(written(bad).is_err(), "{bad:?}");
        }
    }
}
