//! What the datasets beside a target are called: staged, set aside, quarantined, fetched for files. Pure.
//!
//! They are siblings of the target, because only there they inherit what the target inherits (encryption above all: a
//! dataset can't be renamed out of its encryption root) and are one rename away. Their names begin with `.reseed-`, which
//! no operator gives to data, and end with the target's own.

use std::path::{Path, PathBuf};

use reseed_core::error::{StoreError, StoreKind};
use reseed_core::names::{DatasetName, Guid, RunId, SourceName};

const STAGE: &str = ".reseed-stage:";
const ASIDE: &str = ".reseed-aside:";
const BAD: &str = ".reseed-bad:";
const FILES: &str = ".reseed-files:";

/// The dataset above, unless this is a pool's root.
pub(crate) fn parent(dataset: &DatasetName) -> Option<DatasetName> {
    let (above, _) = dataset.as_str().rsplit_once('/')?;
    DatasetName::new(above).ok()
}

fn sibling(dataset: &DatasetName, leaf: &str) -> Result<DatasetName, StoreError> {
    let Some(parent) = parent(dataset) else {
        let what =
            format!("{dataset} is the root of its pool, so nothing can be put in its place by a rename");
        return Err(StoreError::new(StoreKind::Unsupported, what)
            .hint("let the service use a dataset below it, and declare that one"));
    };
    parent.child(leaf).map_err(|error| {
        StoreError::new(
            StoreKind::InvalidInput,
            format!("{dataset} has too long a name for a dataset beside it"),
        )
        .said(error)
    })
}

/// Where a restore of this target is staged.
pub(crate) fn staging(target: &DatasetName) -> Result<DatasetName, StoreError> {
    sibling(target, &format!("{STAGE}{}", target.leaf()))
}

/// Where a snapshot of this target's that is on another machine is brought, to copy files out of it.
pub(crate) fn fetched(target: &DatasetName) -> Result<DatasetName, StoreError> {
    sibling(target, &format!("{FILES}{}", target.leaf()))
}

/// The name under which what stood at this target is kept; `nth` counts from 1 when one run needs several.
pub(crate) fn aside(target: &DatasetName, run: &RunId, nth: u32) -> Result<DatasetName, StoreError> {
    let more = if nth > 1 { format!("-{nth}") } else { String::new() };
    sibling(target, &format!("{ASIDE}{}:{run}{more}", target.leaf()))
}

/// The name under which a lineage that can't be continued is kept on a replica: by its own guid. Another that ends with the same
/// snapshot is another dataset.
pub(crate) fn diverged(replica: &DatasetName, guid: Guid) -> Result<DatasetName, StoreError> {
    sibling(replica, &format!("{ASIDE}{}:{guid}", replica.leaf()))
}

/// Whether a dataset is a lineage of this replica's that could not be continued.
pub(crate) fn is_diverged(replica: &DatasetName, name: &DatasetName) -> bool {
    let guid = name
        .as_str()
        .rsplit(':')
        .next()
        .and_then(|guid| guid.parse().ok());
    guid.is_some_and(|guid| diverged(replica, guid).is_ok_and(|one| one == *name))
}

/// Whether a dataset (or one of its snapshots) is something that was set aside for this target.
pub(crate) fn is_aside(target: &DatasetName, name: &str) -> bool {
    let name = name.split('@').next().unwrap_or(name);
    parent(target).is_some_and(|above| {
        name.strip_prefix(above.as_str())
            .and_then(|rest| rest.strip_prefix('/'))
            .and_then(|rest| rest.strip_prefix(ASIDE))
            .and_then(|rest| rest.strip_prefix(target.leaf()))
            .and_then(|rest| rest.strip_prefix(':'))
            // A run's id has no colon; another target's leaf may begin with ours and one.
            .is_some_and(|run| !run.is_empty() && !run.contains([':', '/']))
    })
}

/// Whether something was set aside for this target by that run.
pub(crate) fn is_aside_of(target: &DatasetName, name: &DatasetName, run: &RunId) -> bool {
    let Ok(first) = aside(target, run, 1) else {
        return false;
    };
    name.as_str().strip_prefix(first.as_str()).is_some_and(|rest| {
        let nth = rest.strip_prefix('-').and_then(|nth| nth.parse::<u32>().ok());
        rest.is_empty() || nth.is_some()
    })
}

/// Where what a source delivered is kept when it failed verification.
pub(crate) fn quarantine(target: &DatasetName, source: &SourceName) -> Result<DatasetName, StoreError> {
    sibling(target, &format!("{BAD}{}:{source}", target.leaf()))
}

/// The directory below `work` that belongs to a dataset. Two datasets never share one: `%` is in no dataset's name.
pub(crate) fn place(work: &Path, kind: &str, dataset: &DatasetName) -> PathBuf {
    work.join(kind).join(dataset.as_str().replace('/', "%"))
}

#[cfg(test)]
mod tests {
    use super::super::argv::tests::ds;
    use super::*;

    #[test]
    fn siblings_are_told_apart() {
        let run = RunId::new("20261122T203300Z-1").unwrap();
        let target = ds("tank/svc/a b");
        assert_eq!(staging(&target).unwrap(), ds("tank/svc/.reseed-stage:a b"));
        assert_eq!(fetched(&target).unwrap(), ds("tank/svc/.reseed-files:a b"));
        let kept = aside(&target, &run, 2).unwrap();
        assert_eq!(kept, ds("tank/svc/.reseed-aside:a b:20261122T203300Z-1-2"));
        assert!(is_aside(&target, kept.as_str()));
        assert!(is_aside(&target, &format!("{kept}@snap")));
        assert!(is_aside_of(&target, &kept, &run));
        let lineage = diverged(&target, Guid(7)).unwrap();
        assert!(is_diverged(&target, &lineage) && !is_diverged(&ds("tank/svc/a"), &lineage));
        assert!(!is_diverged(&target, &kept) && is_aside(&target, lineage.as_str()));
        assert!(is_aside_of(&target, &aside(&target, &run, 1).unwrap(), &run));
        let later = RunId::new("20261122T203300Z-12").unwrap();
        assert!(!is_aside_of(&target, &aside(&target, &later, 1).unwrap(), &run));
        for other in [
            "tank/svc/a b",
            "tank/svc/.reseed-aside:a",
            "tank/svc/.reseed-aside:a b:",
            "tank/.reseed-aside:a b:r",
        ] {
            assert!(!is_aside(&target, other), "{other}");
        }
        // The target `a` next to one that is called `a:b`.
        assert!(!is_aside(
            &ds("tank/a"),
            "tank/.reseed-aside:a:b:20261122T203300Z-1"
        ));
        assert_eq!(staging(&ds("tank")).unwrap_err().kind(), StoreKind::Unsupported);
        let long = ds(&format!("tank/{}", "x".repeat(250)));
        assert_eq!(staging(&long).unwrap_err().kind(), StoreKind::InvalidInput);
    }
}
