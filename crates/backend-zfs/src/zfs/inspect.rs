//! What stands at each target (S1 to S3): one `zfs get` for all of them and what earlier runs left beside them, the kernel's mount table, and
//! a look into each mounted root.
//!
//! "Nothing is there" is said only when `zfs` says so and the pool is imported and answers. "Empty" and "populated" are
//! said only of a directory that is the root of exactly this dataset, mounted exactly there. Pools are asked for only
//! when something isn't plainly there.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use reseed_core::Context;
use reseed_core::error::StoreError;
use reseed_core::names::{DatasetName, Guid};
use reseed_core::point::{MarkerState, Target};
use reseed_core::store::{Condition, Inspection, Leftover};

use super::aside::{self, Kept};
use super::mounts::{self, Mount, Standing};
use super::parse::{Facts, Said};
use super::pools::{self, Pool};
use super::record::{self, StageRecord};
use super::tool::Tool;
use super::{list, names, work};

/// Judges every target.
pub(crate) async fn inspect(
    tool: &Tool,
    cx: &Context,
    targets: &[Target],
) -> Result<Vec<Inspection>, StoreError> {
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let mut wanted: BTreeSet<DatasetName> = BTreeSet::new();
    for target in targets {
        wanted.insert(target.dataset.clone());
        wanted.extend(names::staging(&target.dataset));
        wanted.extend(names::fetched(&target.dataset));
    }
    let wanted: Vec<DatasetName> = wanted.into_iter().collect();
    let said = list::facts(tool, cx, &wanted).await?;
    let said: BTreeMap<DatasetName, Said> = wanted.into_iter().zip(said).collect();
    let pools = pools_of(tool, cx, targets, &said).await;
    let cut_off = cut_off(tool, cx, targets, &said).await;
    let targets = targets.to_vec();
    work::blocking("can't look at the mounted datasets", move || {
        let mounts = mounts::now();
        let judge = |target: &Target| one(target, &said, &pools, &cut_off, mounts.as_deref());
        Ok(targets.iter().map(judge).collect())
    })
    .await
}

/// The pools' states: by the kernel, and by the tool where the kernel says nothing good and it matters.
async fn pools_of(
    tool: &Tool,
    cx: &Context,
    targets: &[Target],
    said: &BTreeMap<DatasetName, Said>,
) -> BTreeMap<String, Pool> {
    let mut all = BTreeMap::new();
    let mut ask = BTreeSet::new();
    for target in targets {
        let name = target.dataset.pool();
        let plain = matches!(said.get(&target.dataset), Some(Said::Facts(_)));
        match pools::by_kernel(tool, name) {
            Some(pool) => {
                all.insert(name.to_owned(), pool);
            }
            // Listed by `zfs`, so it is imported; this kernel only doesn't tell how it is.
            None if plain => {
                all.entry(name.to_owned()).or_insert(Pool::Usable);
            }
            None => {
                ask.insert(name);
            }
        }
    }
    if !ask.is_empty() {
        all.extend(pools::by_tool(tool, cx, ask).await);
    }
    all
}

/// What stood at a target when a promotion was cut off, and what it is now; or why that can't be told.
type CutOff = Result<(Guid, Kept), String>;

/// The targets of which nothing stands there but what was set aside for what is staged, which doesn't stand there yet.
async fn cut_off(
    tool: &Tool,
    cx: &Context,
    targets: &[Target],
    said: &BTreeMap<DatasetName, Said>,
) -> BTreeMap<DatasetName, CutOff> {
    let mut all = BTreeMap::new();
    for target in targets {
        let staged = names::staging(&target.dataset)
            .ok()
            .and_then(|name| said.get(&name));
        let live = match said.get(&target.dataset) {
            Some(Said::NotThere) => None,
            Some(Said::Facts(live)) => Some(&**live),
            _ => continue,
        };
        let Some(Said::Facts(staged)) = staged else {
            continue;
        };
        let record = StageRecord::of(staged).filter(|record| record.dataset == target.dataset);
        let Some(over) = record.and_then(|record| record.over) else {
            continue;
        };
        match left_aside(tool, cx, target, live, over).await {
            Ok(None) => {}
            Ok(Some(kept)) => {
                all.insert(target.dataset.clone(), Ok((over, kept)));
            }
            Err(error) => {
                let why = format!("whether its data is set aside can't be told: {error}");
                all.insert(target.dataset.clone(), Err(why));
            }
        }
    }
    all
}

/// What was set aside for what is staged and is all that there is: nothing stands at the target, or something that has come there meanwhile
/// (`reseed apply` makes what is declared) and holds nothing as far as can be seen.
pub(crate) async fn left_aside(
    tool: &Tool,
    cx: &Context,
    target: &Target,
    live: Option<&Facts>,
    over: Guid,
) -> Result<Option<Kept>, StoreError> {
    let Some(live) = live else {
        return aside::find(tool, cx, target, over).await;
    };
    let adopted = record::marker(live).is_some_and(|marker| marker.state == MarkerState::Adopted);
    if live.guid == over || adopted || !live.is_filesystem {
        return Ok(None);
    }
    let Some(at_place) = stub(target).await? else {
        return Ok(None);
    };
    let found = aside::find(tool, cx, target, over).await?;
    let is_it = |aside: &Kept| {
        at_place.is_empty()
            || [&target.dataset, &aside.name]
                .iter()
                .any(|one| one.as_str() == at_place)
    };
    Ok(found.filter(is_it))
}

/// What is mounted at the place (nothing: empty) of a dataset that is mounted there and empty, or nowhere.
async fn stub(target: &Target) -> Result<Option<OsString>, StoreError> {
    let target = target.clone();
    work::blocking("can't look at the target's place", move || {
        let all = mounts::now().map_err(|error| StoreError::io("can't read what is mounted", &error))?;
        let place = real(&target.mountpoint);
        let top = mounts::at(&all, &place);
        let stub = match (mounts::of(&all, target.dataset.as_str()), top) {
            (None, _) => true,
            (Some(_), Some(top)) if top.is_dataset(target.dataset.as_str()) => {
                matches!(mounts::look(&place, Some(top.device)), Ok(Standing::EmptyDir))
            }
            _ => false,
        };
        Ok(stub.then(|| top.map(|top| top.source.clone()).unwrap_or_default()))
    })
    .await
}

fn one(
    target: &Target,
    said: &BTreeMap<DatasetName, Said>,
    pools: &BTreeMap<String, Pool>,
    cut_off: &BTreeMap<DatasetName, CutOff>,
    mounts: Result<&[Mount], &std::io::Error>,
) -> Inspection {
    let facts = match said.get(&target.dataset) {
        Some(Said::Facts(facts)) => Some(facts),
        _ => None,
    };
    let mut answer = Inspection {
        target: target.clone(),
        condition: Condition::Absent,
        guid: facts.map(|facts| facts.guid),
        marker: facts.and_then(|facts| record::marker(facts)),
        leftover: leftover(target, facts.map(|facts| &**facts), said),
    };
    answer.condition = match pools.get(target.dataset.pool()) {
        Some(Pool::Unavailable(why)) => Condition::PoolUnavailable { why: why.clone() },
        Some(Pool::Unknown(why)) => Condition::Unknown { why: why.clone() },
        Some(Pool::Usable) | None => match (said.get(&target.dataset), mounts) {
            (_, Err(error)) => Condition::Unknown {
                why: format!("can't read what is mounted: {error}"),
            },
            (Some(said @ (Said::Facts(_) | Said::NotThere)), Ok(mounts)) => {
                match (cut_off.get(&target.dataset), said) {
                    (Some(Ok((guid, aside))), _) => {
                        if let Some(leftover) = answer.leftover.as_mut().filter(|left| !left.files) {
                            leftover.over = Some(*guid);
                        }
                        Condition::Unmounted {
                            why: aside::told(&target.dataset, Some(&target.mountpoint), aside),
                        }
                    }
                    (Some(Err(why)), _) => Condition::Unknown { why: why.clone() },
                    (None, Said::Facts(facts)) => there(target, facts, mounts),
                    (None, _) => not_there(target, mounts),
                }
            }
            (Some(Said::Unclear(why)), _) => Condition::Unknown { why: why.clone() },
            (None, _) => Condition::Unknown {
                why: "zfs wasn't asked about it".to_owned(),
            },
        },
    };
    answer
}

fn leftover(target: &Target, facts: Option<&Facts>, said: &BTreeMap<DatasetName, Said>) -> Option<Leftover> {
    let told = |record: StageRecord, promoted, files| Leftover {
        files,
        run: record.run,
        source: record.point.source.clone(),
        point: record.point,
        promoted,
        over: None,
    };
    if let Some(record) = facts.and_then(|facts| StageRecord::promoted(&target.dataset, facts)) {
        return Some(told(record, true, false));
    }
    let record = |name: Result<DatasetName, StoreError>| match said.get(&name.ok()?)? {
        Said::Facts(there) => StageRecord::of(there)
            .filter(|record| record.dataset == target.dataset && record.quarantined.is_none()),
        _ => None,
    };
    record(names::staging(&target.dataset))
        .map(|record| told(record, false, false))
        .or_else(|| record(names::fetched(&target.dataset)).map(|record| told(record, false, true)))
}

/// The target's path as the kernel calls it.
pub(crate) fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// The dataset exists.
fn there(target: &Target, facts: &Facts, mounts: &[Mount]) -> Condition {
    if !facts.is_filesystem {
        return Condition::Occupied {
            by: format!("a volume called {}", target.dataset),
        };
    }
    let place = real(&target.mountpoint);
    match mounts::at(mounts, &place) {
        Some(mount) if mount.is_dataset(target.dataset.as_str()) => {
            return match mounts::look(&place, Some(mount.device)) {
                Ok(Standing::EmptyDir) => Condition::Empty,
                Ok(Standing::PopulatedDir) => Condition::Populated,
                Ok(other) => Condition::Unknown {
                    why: format!("the root of {} looks like {other:?}", target.dataset),
                },
                Err(error) => Condition::Unknown {
                    why: format!("can't look into {place:?}: {error}"),
                },
            };
        }
        _ => {}
    }
    if let Some(condition) = occupied(target, &place, mounts) {
        return condition;
    }
    let why = match mounts::of(mounts, target.dataset.as_str()) {
        Some(mount) => format!("it is mounted at {:?}", mount.point),
        None => format!(
            "it is not mounted (mountpoint={}, canmount={})",
            facts.mountpoint.text, facts.canmount.text
        ),
    };
    Condition::Unmounted { why }
}

fn not_there(target: &Target, mounts: &[Mount]) -> Condition {
    occupied(target, &real(&target.mountpoint), mounts).unwrap_or(Condition::Absent)
}

/// What at a target's place would be hidden by mounting over it.
pub(crate) fn occupied(target: &Target, place: &Path, mounts: &[Mount]) -> Option<Condition> {
    if let Some(mount) = mounts::at(mounts, place) {
        // A promotion onto something empty that was cut off between renaming that and unmounting it: the next one goes on,
        // unless a service has written to it meanwhile.
        if mount.whole
            && mount.fstype == "zfs"
            && names::is_aside(&target.dataset, &mount.source.to_string_lossy())
            && matches!(mounts::look(place, Some(mount.device)), Ok(Standing::EmptyDir))
        {
            return None;
        }
        return Some(Condition::Occupied {
            by: format!(
                "the {} filesystem {}",
                mount.fstype,
                mount.source.to_string_lossy()
            ),
        });
    }
    match mounts::look(place, None) {
        Ok(Standing::Nothing | Standing::EmptyDir) => None,
        Ok(Standing::PopulatedDir) => Some(Condition::Occupied {
            by: "a directory that holds something".to_owned(),
        }),
        Ok(Standing::Other) => Some(Condition::Occupied {
            by: "something that is not a directory".to_owned(),
        }),
        Err(error) => Some(Condition::Unknown {
            why: format!("can't look at {place:?}: {error}"),
        }),
    }
}
