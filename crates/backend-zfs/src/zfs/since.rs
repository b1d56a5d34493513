//! What lies between a snapshot and what is live (S16): how much was written, and where it would be kept. Asks, and
//! changes nothing.

use reseed_core::Context;
use reseed_core::error::{StoreError, StoreKind};
use reseed_core::names::Guid;
use reseed_core::point::{SnapshotRef, Target};
use reseed_core::store::Since;

use super::lineage::Lineage;
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

/// Whether each snapshot after the one up to the other has nothing that the one before it hasn't. Whatever changes in a dataset, a name or a time too,
/// is a block that is written.
pub(crate) async fn unwritten(
    tool: &Tool,
    cx: &Context,
    older: Guid,
    newer: &SnapshotRef,
) -> Result<bool, StoreError> {
    let names = std::slice::from_ref(&newer.dataset);
    let lines = list::lineages::<StoreKind>(tool, cx, names).await?;
    let of_it = lines.iter().filter(|line| line.dataset == newer.dataset);
    Ok(is_unwritten(&Lineage::of(of_it), older, newer.guid))
}

fn is_unwritten(lineage: &Lineage, older: Guid, newer: Guid) -> bool {
    let at = |guid| lineage.snapshots.iter().find(|mark| mark.guid == guid);
    let (Some(older), Some(newer)) = (at(older), at(newer)) else {
        return false;
    };
    let between = older.createtxg + 1..=newer.createtxg;
    let named = lineage
        .snapshots
        .iter()
        .map(|mark| (mark.createtxg, mark.written));
    let odd = lineage.odd.iter().map(|mark| (mark.createtxg, mark.written));
    let mut all = named.chain(odd);
    older.createtxg < newer.createtxg && all.all(|(at, written)| written == 0 || !between.contains(&at))
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
