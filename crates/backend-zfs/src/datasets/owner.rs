//! Whose the topmost directories of declared datasets are to be: added to a plan of their properties.
//!
//! Only what is mounted, or will be by the plan, can be given to somebody; a name that this machine doesn't know stands in the way of
//! its own dataset and of no other.

use std::collections::BTreeMap;

use reseed_core::Context;
use reseed_core::error::{StoreError, StoreKind};
use reseed_core::names::DatasetName;
use reseed_core::ownership::Ownership;

use super::actual::Actual;
use super::apply::Layout;
use super::plan::{LayoutPlan, Obstacle, Step};
use crate::zfs::{owner, work};

pub use crate::zfs::owner::{DirFacts, DirWanted};

/// What is declared of topmost directories, in numbers; or why it can't be told.
pub type Owners = BTreeMap<DatasetName, Result<DirWanted, String>>;

/// What topmost directories have; none where nothing is mounted.
pub type Roots = BTreeMap<DatasetName, Option<DirFacts>>;

impl Layout {
    /// What is declared, in numbers of this machine, and what is there.
    ///
    /// # Errors
    /// When the run is cancelled. What can't be told of one dataset stands in its own place.
    pub async fn owners(
        &self,
        cx: &Context,
        declared: &BTreeMap<DatasetName, Ownership>,
    ) -> Result<(Owners, Roots), StoreError> {
        let (mut owners, mut roots) = (Owners::new(), Roots::new());
        for (dataset, declared) in declared.iter().filter(|(_, declared)| !declared.is_nothing()) {
            let wanted = match owner::resolve::<StoreKind>(self.runner(), cx, declared).await {
                Err(error) if error.kind() == StoreKind::Cancelled => return Err(error),
                Err(error) => Err(error.to_string()),
                Ok(wanted) => Ok(wanted),
            };
            let name = dataset.to_string();
            let found = work::blocking("can't look at a dataset's topmost directory", move || {
                let what = format!("can't look at the topmost directory of {name}");
                owner::look(&name).map_err(|error| StoreError::io(what, &error))
            });
            match found.await {
                Ok(root) => {
                    owners.insert(dataset.clone(), wanted);
                    roots.insert(dataset.clone(), root);
                }
                Err(error) => {
                    owners.insert(dataset.clone(), Err(error.to_string()));
                }
            }
        }
        Ok((owners, roots))
    }
}

/// Adds what is missing of it to a plan.
pub fn add_owners(plan: &mut LayoutPlan, owners: &Owners, roots: &Roots, actual: &Actual) {
    for (dataset, wanted) in owners {
        let name = dataset.as_str();
        let obstacle = |why: String| Obstacle {
            dataset: name.to_owned(),
            why,
        };
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(why) => {
                plan.obstacles.push(obstacle(why.clone()));
                continue;
            }
        };
        let from = roots.get(dataset).copied().flatten();
        if from.is_some_and(|has| wanted.is_had_by(&has)) {
            continue;
        }
        let mounts = plan.steps.iter().any(|step| match step {
            Step::Create { dataset, .. } | Step::Mount { dataset, .. } => dataset == name,
            Step::Set { .. } | Step::Own { .. } => false,
        });
        if from.is_some() || mounts {
            plan.steps.push(Step::Own {
                dataset: name.to_owned(),
                from,
                to: *wanted,
            });
        } else if actual.contains_key(name) && !plan.obstacles.iter().any(|one| one.dataset == name) {
            let why = "it isn't mounted, so its topmost directory can't be given to anybody; mount it, or declare no owner, group and mode";
            plan.obstacles.push(obstacle(why.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use reseed_core::ownership::DirMode;

    use super::super::actual::Dataset;
    use super::*;

    fn ds(name: &str) -> DatasetName {
        DatasetName::new(name).unwrap()
    }

    fn create(dataset: &str) -> Step {
        Step::Create {
            dataset: dataset.to_owned(),
            properties: BTreeMap::new(),
            implied: false,
        }
    }

    #[test]
    fn what_is_mounted_or_will_be_is_given_and_the_rest_is_told() {
        let wanted = DirWanted {
            uid: Some(26),
            gid: None,
            mode: Some(DirMode::of_bits(0o700)),
        };
        let is = DirFacts {
            uid: 26,
            gid: 7,
            mode: DirMode::of_bits(0o700),
        };
        let drifted = DirFacts { uid: 0, ..is };
        let all = ["t/as", "t/drifted", "t/locked", "t/new", "t/off", "t/unknown"];
        let mut owners: Owners = all.iter().map(|name| (ds(name), Ok(wanted))).collect();
        owners.insert(ds("t/unknown"), Err("there is no user x".to_owned()));
        let roots: Roots = [
            (ds("t/as"), Some(is)),
            (ds("t/drifted"), Some(drifted)),
            (ds("t/off"), None),
        ]
        .into();
        let there = ["t/as", "t/drifted", "t/locked", "t/off", "t/unknown"];
        let actual: Actual = there
            .iter()
            .map(|name| ((*name).to_owned(), Dataset::default()))
            .collect();
        let mut plan = LayoutPlan {
            steps: vec![create("t/new")],
            obstacles: vec![Obstacle {
                dataset: "t/locked".to_owned(),
                why: "its key".to_owned(),
            }],
        };
        add_owners(&mut plan, &owners, &roots, &actual);
        assert_eq!(
            plan.to_string(),
            "+ t/new\n\
             ~ t/drifted  topmost directory: owner 0 -> 26\n\
             ~ t/new  topmost directory: owner 26, mode 0700\n\
             ! t/locked  its key\n\
             ! t/off  it isn't mounted, so its topmost directory can't be given to anybody; mount it, or declare no owner, group and mode\n\
             ! t/unknown  there is no user x\n\
             1 to create, 2 to set, 3 that can't be"
        );
    }
}
