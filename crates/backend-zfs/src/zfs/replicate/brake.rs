//! A brake on setting aside: where a replica can't be continued time and again, something there takes away what arrives, or writes to it, or
//! a name comes again and again with another snapshot, and another baseline only fills the pool.
//!
//! Twice in [`WITHIN`] is let through. Then it takes an operator, who finds out why, and removes or renames what was set aside: only what still
//! lies there counts. A rollback or a restore of the service is not stopped: then it is the store that has gone back.

use std::time::Duration;

use jiff::Timestamp;
use reseed_core::Context;
use reseed_core::error::{ReplicateError, ReplicateKind};
use reseed_core::names::{DatasetName, Guid};
use reseed_core::replicate::ReplicationStep;

use super::super::lineage::Lineage;
use super::super::parse::{What, text};
use super::super::{argv, list, names};
use super::NativeReplicator;

/// How often it happens by itself.
const MOST: usize = 2;
const WITHIN: Duration = Duration::from_secs(30 * 24 * 3600);

impl NativeReplicator {
    /// Why a step isn't done that would set its replica aside once more.
    pub(super) async fn braked(
        &self,
        cx: &Context,
        step: &ReplicationStep,
        here: &Lineage,
        there: &Lineage,
    ) -> Result<Option<ReplicateError>, ReplicateError> {
        let (Some(divergence), Some(newest)) = (&step.set_aside, here.snapshots.last()) else {
            return Ok(None);
        };
        let replica = self.replica(&step.target.dataset)?;
        // After a rollback or a restore of the service it is not the replica that has changed.
        if there.written == 0 && self.has_gone_back(cx, &replica, here).await? {
            return Ok(None);
        }
        let mut kept = list::asides::<ReplicateKind>(&self.there, cx, &replica).await?;
        kept.retain(|name| names::is_diverged(&replica, name));
        if kept.len() < MOST {
            return Ok(None);
        }
        let all: Vec<DatasetName> = kept.iter().chain([&replica]).cloned().collect();
        let lines = list::lineages::<ReplicateKind>(&self.there, cx, &all).await?;
        let begun = (lines.iter())
            .filter(|line| line.what == What::Dataset && all.contains(&line.dataset))
            .map(|line| line.creation);
        // The store's newest snapshot was taken now, or there would be nothing to send.
        if !too_often(begun.collect(), newest.taken_at) {
            return Ok(None);
        }
        let dataset = &step.target.dataset;
        let names: Vec<String> = kept.iter().map(|name| format!("'{name}'")).collect();
        let what = format!(
            "the replica of {dataset} can't be continued ({}), and was set aside {} times already in the last {} days: it isn't once more",
            divergence.why,
            names.len(),
            WITHIN.as_secs() / (24 * 3600)
        );
        Ok(Some(ReplicateError::new(ReplicateKind::Diverged, what).hint(format!(
            "find out what writes to {replica}, takes its newest snapshot away (sanoid does where a type is 0), or takes snapshots of the \
             same name anew, here or there; then remove what was set aside, or give it another name, as in `zfs rename {}'{}' '{replica}-was'`. \
             It is: {}",
            if there.volume { "" } else { "-u " },
            names[0],
            names.join(", ")
        ))))
    }

    /// Whether the store has gone back to before what was last sent.
    async fn has_gone_back(
        &self,
        cx: &Context,
        replica: &DatasetName,
        here: &Lineage,
    ) -> Result<bool, ReplicateError> {
        let what = format!("can't tell what was last sent to {replica}");
        let args = argv::get_local(replica, argv::SENT);
        let read = |stdout: &[u8]| Ok(text(stdout)?.trim_end().parse().ok());
        let sent = self.there.read(cx, args, &what, read).await?;
        Ok(is_gone(sent, here))
    }
}

/// Whether nothing is left in the store of what was last sent. A rollback and a restore take its bookmark along with the snapshot; whoever
/// only removes the snapshot leaves the bookmark.
fn is_gone(sent: Option<Guid>, here: &Lineage) -> bool {
    // What an earlier version sent to says nothing.
    sent.is_none_or(|sent| {
        !here
            .snapshots
            .iter()
            .chain(&here.bookmarks)
            .any(|mark| mark.guid == sent)
    })
}

/// Whether of these lineages, by when each was begun, more than [`MOST`] have followed another lately.
fn too_often(mut begun: Vec<Timestamp>, now: Timestamp) -> bool {
    begun.sort_unstable();
    // The first has followed none.
    let followed = begun.get(1..).unwrap_or_default();
    let lately = |one: &&Timestamp| now.duration_since(**one).unsigned_abs() < WITHIN;
    followed.iter().filter(lately).count() >= MOST
}

#[cfg(test)]
mod tests {
    use reseed_core::names::SnapshotName;

    use super::super::super::lineage::Mark;
    use super::*;

    #[test]
    fn only_what_has_happened_lately_and_often_counts() {
        let day = |day: i64| Timestamp::from_second(day * 24 * 3600).unwrap();
        let often = |days: &[i64]| too_often(days.iter().map(|one| day(*one)).collect(), day(100));
        assert!(often(&[1, 98, 99]));
        assert!(often(&[99, 98, 97, 96]));
        assert!(!often(&[98, 99]), "once");
        assert!(!often(&[1, 50, 99]), "once lately");
        assert!(!often(&[1, 2, 3, 4]), "long ago");
        assert!(!often(&[]));
    }

    #[test]
    fn what_was_last_sent_is_gone_with_its_snapshot_and_its_bookmark() {
        let name = SnapshotName::new("s").unwrap();
        let mark = |guid| Mark {
            name: name.clone(),
            guid: Guid(guid),
            createtxg: guid,
            written: 0,
            taken_at: Timestamp::UNIX_EPOCH,
            own: super::super::super::transfer::Own::default(),
            userrefs: 0,
        };
        let here = Lineage {
            snapshots: vec![mark(1), mark(4)],
            bookmarks: vec![mark(1), mark(2)],
            ..Lineage::default()
        };
        let gone = [1, 2, 3, 4].map(|sent| is_gone(Some(Guid(sent)), &here));
        assert_eq!(gone, [false, false, true, false]);
        assert!(is_gone(None, &here));
    }
}
