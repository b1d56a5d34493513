//! What the two sources over ZFS have in common: a lineage's snapshots as recovery points, and looking at what one holds.
//!
//! A lineage is a dataset and what was set aside beside it: history that a promotion has left there is offered too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use reseed_core::Context;
use reseed_core::error::{SourceError, SourceKind};
use reseed_core::names::{DatasetName, Guid, SourceName};
use reseed_core::point::{RecoveryPoint, Target};
use reseed_core::source::{RestorePlan, RestoreRequest, Scope};
use reseed_core::store::Staging;

use super::mounts::{self, Standing};
use super::parse::Listed;
use super::tool::Tool;
use super::{list, names, record, staging, work};

/// Every snapshot of a lineage, newest first.
pub(crate) async fn points(
    tool: &Tool,
    cx: &Context,
    source: &SourceName,
    target: &Target,
    lineage: &DatasetName,
) -> Result<Vec<RecoveryPoint>, SourceError> {
    let mut datasets = vec![lineage.clone()];
    datasets.extend(list::asides(tool, cx, lineage).await?);
    points_in(tool, cx, source, target, lineage, &datasets).await
}

/// The snapshots of these datasets, which are a lineage and what was set aside of it, newest first.
pub(crate) async fn points_in(
    tool: &Tool,
    cx: &Context,
    source: &SourceName,
    target: &Target,
    lineage: &DatasetName,
    datasets: &[DatasetName],
) -> Result<Vec<RecoveryPoint>, SourceError> {
    let mut found: Vec<Listed> = list::snapshots(tool, cx, datasets).await?;
    found = newest_first(found, lineage);
    let mut all: Vec<RecoveryPoint> = Vec::with_capacity(found.len());
    for one in &found {
        let point = RecoveryPoint {
            id: one.guid.into(),
            dataset: target.dataset.clone(),
            source: source.clone(),
            locator: format!("{}@{}", one.dataset, one.name),
            snapshot: Some(one.name.clone()),
            taken_at: record::taken_at(one),
            fingerprint: record::fingerprint(one),
            bytes: Some(one.referenced),
            unseeded: one.unseeded,
            partial: false,
            altered: false,
        };
        // The same snapshot in two lineages is one point.
        if !all.iter().any(|known| known.id == point.id) {
            all.push(point);
        }
    }
    Ok(all)
}

/// Within a dataset transaction groups say what came after what: they only ever count up, and dates are the clock's, which may have been
/// wrong. Between datasets they say nothing: what was received again is old, and came late. There the dates have to do.
fn newest_first(found: Vec<Listed>, lineage: &DatasetName) -> Vec<Listed> {
    let mut of: BTreeMap<DatasetName, Vec<Listed>> = BTreeMap::new();
    for one in found {
        of.entry(one.dataset.clone()).or_default().push(one);
    }
    let mut left: Vec<Vec<(Timestamp, Listed)>> = Vec::with_capacity(of.len());
    for mut all in of.into_values() {
        all.sort_by_key(|one| one.createtxg);
        // None is older than what was there before it: a clock may also have begun at 1970.
        let mut since = Timestamp::MIN;
        let dated = all.into_iter().map(|one| {
            since = since.max(record::taken_at(&one));
            (since, one)
        });
        left.push(dated.collect());
    }
    let mut ordered = Vec::new();
    let when = |(since, one): &(Timestamp, Listed)| (*since, one.dataset == *lineage, one.createtxg);
    while let Some((_, next)) = left
        .iter_mut()
        .max_by_key(|all| all.last().map(when))
        .and_then(Vec::pop)
    {
        ordered.push(next);
    }
    ordered
}

/// A point's snapshot, as it is now.
pub(crate) async fn exact(
    tool: &Tool,
    cx: &Context,
    point: &RecoveryPoint,
    lineage: &DatasetName,
) -> Result<Listed, SourceError> {
    let gone = || {
        let what = format!("there is no snapshot {} with guid {}", point.locator, point.id);
        SourceError::new(SourceKind::NoSuchPoint, what)
    };
    let (dataset, name) = point.locator.split_once('@').ok_or_else(gone)?;
    let guid: Guid = point.id.as_str().parse().map_err(|_| gone())?;
    let (Ok(dataset), Ok(name)) = (dataset.parse::<DatasetName>(), name.parse()) else {
        return Err(gone());
    };
    if dataset != *lineage && !names::is_aside(lineage, dataset.as_str()) {
        return Err(gone().said(format!("{dataset} is not {lineage}")));
    }
    let found: Vec<Listed> = list::these(tool, cx, [(&dataset, &name)]).await?;
    found.into_iter().find(|one| one.guid == guid).ok_or_else(gone)
}

/// Refuses what these sources can't do.
pub(crate) fn whole(request: &RestoreRequest) -> Result<(), SourceError> {
    match &request.scope {
        Scope::Whole => Ok(()),
        Scope::Path(path) => Err(SourceError::new(
            SourceKind::Unsupported,
            format!("a dataset comes back whole; {path:?} alone has to be copied out of an opened snapshot"),
        )),
    }
}

/// The dataset that a staging place is, which must be the target's own.
pub(crate) fn staged_name(plan: &RestorePlan, staging: &Staging) -> Result<DatasetName, SourceError> {
    let name =
        names::staging(&plan.request.target.dataset).map_err(|error| error.convert(SourceKind::Target))?;
    if staging.locator != name.as_str() || staging.target != plan.request.target {
        let what = format!(
            "{} is no staging dataset for {}",
            staging.locator, plan.request.target.dataset
        );
        return Err(SourceError::new(SourceKind::InvalidInput, what));
    }
    Ok(name)
}

/// The record that staging begins with.
pub(crate) fn begun(cx: &Context, plan: &RestorePlan) -> Result<String, SourceError> {
    staging::begun(&plan.request.target, cx, &plan.request.point)
        .map_err(|error| error.convert(SourceKind::Target))
}

/// Files and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// What a snapshot or dataset holds: it is mounted read-only for it. Nothing at all is `NothingRestored`. Where the
/// point was measured when it was taken, its files needn't be counted again. A place that somebody keeps busy is no reason against what was
/// seen in it: it is told, and the next run unmounts it.
pub(crate) async fn census(
    source: String,
    place: PathBuf,
    point: &RecoveryPoint,
) -> Result<(Census, Option<String>), SourceError> {
    let known = point.fingerprint.map(|found| Census {
        files: found.files,
        bytes: found.bytes,
    });
    let of_nothing = point.is_of_nothing();
    work::mount::<SourceKind>(source, place.clone(), true).await?;
    let at = place.clone();
    let (id, dataset) = (point.id.clone(), point.dataset.clone());
    let found = work::blocking("can't count what was restored", move || {
        let failed = |error| SourceError::io(format!("can't look into {at:?}"), &error);
        if !of_nothing && mounts::look(&at, None).map_err(failed)? != Standing::PopulatedDir {
            let what = format!("recovery point {id} of {dataset} is empty");
            return Err(SourceError::new(SourceKind::NothingRestored, what));
        }
        match known {
            Some(known) => Ok(known),
            None => count(&at).map_err(failed),
        }
    })
    .await;
    let unmounted = work::unmount::<SourceKind>(place).await;
    Ok((found?, unmounted.err().map(|error| error.to_string())))
}

fn count(root: &Path) -> std::io::Result<Census> {
    use std::os::unix::fs::MetadataExt as _;
    let mut all = Census::default();
    let mut linked = std::collections::HashSet::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                left.push(entry.path());
            } else if meta.is_file() {
                all.files += 1;
                if meta.nlink() == 1 || linked.insert(meta.ino()) {
                    all.bytes += meta.len();
                }
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(dataset: &str, name: &str, createtxg: u64, at: i64) -> Listed {
        Listed {
            dataset: DatasetName::new(dataset).unwrap(),
            name: name.parse().unwrap(),
            guid: Guid(at.unsigned_abs()),
            createtxg,
            creation: Timestamp::from_second(at).unwrap(),
            userrefs: 0,
            referenced: 0,
            taken: None,
            unseeded: false,
            digest: None,
        }
    }

    fn ordered(found: Vec<Listed>) -> Vec<String> {
        let lineage = DatasetName::new("tank/a").unwrap();
        let all = newest_first(found, &lineage);
        all.iter()
            .map(|one| format!("{}@{}", one.dataset.leaf(), one.name))
            .collect()
    }

    #[test]
    fn within_a_dataset_what_came_last_is_the_newest_whatever_its_date() {
        let found = vec![
            listed("tank/a", "ahead", 2, 9_000),
            listed("tank/a", "new", 3, 20),
            listed("tank/a", "old", 1, 10),
        ];
        assert_eq!(ordered(found), ["a@new", "a@ahead", "a@old"]);
    }

    #[test]
    fn a_clock_that_began_anew_makes_nothing_older_than_what_was_set_aside() {
        let found = vec![
            listed("tank/.reseed-aside:a:x", "s1", 1, 10),
            listed("tank/a", "s2", 2, 20),
            listed("tank/a", "after-a-power-cut", 3, 0),
        ];
        let wanted = ["a@after-a-power-cut", "a@s2", ".reseed-aside:a:x@s1"];
        assert_eq!(ordered(found), wanted);
    }

    /// A replica that was set aside, and of which the first snapshot has arrived again.
    #[test]
    fn what_is_received_again_is_as_old_as_it_was() {
        let mut found: Vec<Listed> = (1..=3)
            .map(|n| {
                listed(
                    "tank/.reseed-aside:a:x",
                    &format!("s{n}"),
                    n,
                    i64::try_from(n).unwrap(),
                )
            })
            .collect();
        found.push(listed("tank/a", "s1", 100, 1));
        let aside = ".reseed-aside:a:x";
        let wanted = [
            format!("{aside}@s3"),
            format!("{aside}@s2"),
            "a@s1".to_owned(),
            format!("{aside}@s1"),
        ];
        assert_eq!(ordered(found), wanted);
    }
}
