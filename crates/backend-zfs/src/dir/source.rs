//! [`DirSource`]: restores from the snapshots in a store's root, the store's own or a replica's.
//!
//! Files are cloned or copied, never linked: what becomes live must not share an inode with a snapshot. On what an
//! interrupted restore left, files with the same content are kept, everything else is made anew or removed.
//!
//! It offers every snapshot, also those of lineages that were set aside, and those whose record is damaged: as the
//! oldest, marked partial, and `Corrupt` when asked for. So the answer is complete, and one damaged record doesn't take
//! the others with it. A root that can't be opened is an error and never an empty list.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use reseed_core::clock::Clock;
use reseed_core::error::{Common, Effect, SourceError, SourceKind};
use reseed_core::names::{DatasetName, SourceName};
use reseed_core::point::{RecoveryPoint, Target};
use reseed_core::source::{RestorePlan, RestoreRequest, Restored, Scope, SourceCaps, SourceClass};
use reseed_core::store::{Delivery, StageState, Staging};
use reseed_core::{Context, RestoreSource};

use super::errors::Outward;
use super::fault::{Fault, Side};
use super::job::{Job, Jobs};
use super::members::{self, Member};
use super::out::open_staging;
use super::root::{self, Dataset, Root};
use super::store::DirStore;
use super::sys::{During, joined};
use super::tree::{self, Copying};

/// The recovery points in a directory store.
#[derive(Debug, Clone)]
pub struct DirSource {
    name: SourceName,
    root: PathBuf,
    class: SourceClass,
    /// Whose points are offered; everybody's without.
    host: Option<String>,
    jobs: Jobs,
}

impl DirSource {
    /// A store's own snapshots, under the store's name.
    pub fn local(store: &DirStore) -> Self {
        Self {
            name: store.name().clone(),
            root: store.root.clone(),
            class: SourceClass::Local,
            host: None,
            jobs: store.jobs.clone(),
        }
    }

    /// A replica in another root.
    pub fn replica(name: SourceName, root: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        Self {
            name,
            root: root.into(),
            class: SourceClass::Replica,
            host: None,
            jobs: Jobs::new(clock),
        }
    }

    /// Offers only what this host replicated. One host's data must not come back as another's service of the same name.
    #[must_use]
    pub fn of_host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }
}

fn open(path: &Path) -> Result<Root, SourceError> {
    root::open(path).map_err(|no| no.into(SourceKind::NoRepository))
}

/// Every snapshot of a dataset, in its lineage and in those set aside.
fn everything(root: &Root, dataset: &DatasetName) -> Result<Vec<(Dataset, Vec<Member>)>, SourceError> {
    let pending = root.pending_groups().source(Effect::None)?;
    let mut lineages = Vec::new();
    if let Some(place) = root.dataset(dataset).source(Effect::None)? {
        lineages.push(place);
    }
    lineages.extend(root.set_aside(dataset).source(Effect::None)?);
    lineages
        .into_iter()
        .map(|place| {
            let members = members::members(&place, dataset, &pending).source(Effect::None)?;
            Ok((place, members))
        })
        .collect()
}

fn point_of(name: &SourceName, root: &Root, member: &Member) -> RecoveryPoint {
    let snapshot = &member.snapshot;
    let locator = member.path.strip_prefix(&root.path).unwrap_or(&member.path);
    RecoveryPoint {
        id: snapshot.guid.into(),
        dataset: snapshot.dataset.clone(),
        source: name.clone(),
        locator: locator.to_string_lossy().into_owned(),
        snapshot: Some(snapshot.name.clone()),
        taken_at: snapshot.taken_at,
        fingerprint: snapshot.fingerprint,
        bytes: snapshot.bytes,
        unseeded: snapshot.unseeded,
        partial: member.record.is_err(),
        altered: false,
    }
}

fn points(
    job: &Job,
    name: &SourceName,
    root: &Path,
    host: Option<&str>,
    target: &Target,
) -> Result<Vec<RecoveryPoint>, SourceError> {
    let root = open(root)?;
    let (mut all, mut others) = (Vec::new(), BTreeSet::new());
    for (place, members) in everything(&root, &target.dataset)? {
        let origin = place.origin().source(Effect::None)?;
        if let (Some(host), Some(origin)) = (host, origin)
            && host != origin
        {
            others.insert(origin);
            continue;
        }
        for member in members {
            if let Err(fail) = member.intact() {
                job.warn(fail.to_string(), fail.what_to_do());
            }
            let point = point_of(name, &root, &member);
            if !all.iter().any(|known: &RecoveryPoint| known.id == point.id) {
                all.push(point);
            }
        }
    }
    if all.is_empty() && !others.is_empty() {
        // Not "there are none": a machine that was renamed or replaced must not take this for a first start.
        let others: Vec<String> = others.into_iter().collect();
        let what = format!("{name} holds {} only of {}", target.dataset, others.join(", "));
        return Err(SourceError::new(SourceKind::NoSuchPoint, what)
            .hint("if that is what this machine was called before, set `host` in the configuration to it"));
    }
    all.sort_by(|a, b| b.taken_at.cmp(&a.taken_at).then_with(|| b.id.cmp(&a.id)));
    Ok(all)
}

/// The snapshot of a point, which must be what it was when the point was told.
fn locate(root: &Root, point: &RecoveryPoint) -> Result<(Dataset, Member), SourceError> {
    for (place, members) in everything(root, &point.dataset)? {
        let Some(member) = members
            .into_iter()
            .find(|member| point.id == member.snapshot.guid.into())
        else {
            continue;
        };
        member.intact().source(Effect::None)?;
        if (member.snapshot.taken_at, member.snapshot.fingerprint) != (point.taken_at, point.fingerprint) {
            return Err(SourceError::new(
                SourceKind::StalePlan,
                format!(
                    "snapshot {}@{} is not what it was when it was listed",
                    point.dataset, member.snapshot.name
                ),
            ));
        }
        return Ok((place, member));
    }
    Err(SourceError::new(
        SourceKind::NoSuchPoint,
        format!(
            "the store at {:?} has no recovery point {} of {}",
            root.path, point.id, point.dataset
        ),
    )
    .hint("`reseed status` lists what there is"))
}

/// The names of a path inside of a tree.
pub(super) fn components(scope: &Scope) -> Result<Vec<CString>, SourceError> {
    let Scope::Path(path) = scope else {
        return Ok(Vec::new());
    };
    let wrong = |why: &str| {
        SourceError::new(
            SourceKind::InvalidInput,
            format!("{path:?} can't be restored: {why}"),
        )
    };
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) if !name.as_bytes().contains(&0) => {
                names.push(joined(name.as_bytes(), b""));
            }
            Component::CurDir => {}
            _ => return Err(wrong("give it relative to the dataset's root, without '..'")),
        }
    }
    if names.is_empty() {
        return Err(wrong("it names nothing"));
    }
    Ok(names)
}

fn plan(root: &Path, request: &RestoreRequest) -> Result<RestorePlan, SourceError> {
    let only = components(&request.scope)?;
    let root = open(root)?;
    let (_, member) = locate(&root, &request.point)?;
    let from = member.path.join("tree");
    let bytes = if only.is_empty() {
        member.snapshot.bytes
    } else {
        None
    };
    let what = match &request.scope {
        Scope::Whole => format!("copy the tree {from:?}"),
        Scope::Path(path) => format!("copy {path:?} of the tree {from:?}"),
    };
    Ok(RestorePlan {
        request: request.clone(),
        bytes,
        steps: vec![
            format!(
                "{what} into staging: clone files where the filesystem can, keep what an earlier attempt brought"
            ),
            "check that the number of files and bytes is the recorded one".to_owned(),
        ],
    })
}

/// A copy's failure in the words of the trait: no other source helps when staging can't be written.
pub(super) fn failed(fault: Fault) -> SourceError {
    let error = fault.fail;
    let says_so = matches!(
        error.kind(),
        Common::NoSpace | Common::ReadOnly | Common::Cancelled | Common::TimedOut
    );
    let error = if fault.side == Side::To && !says_so {
        error.with_kind(SourceKind::Target)
    } else {
        error.convert(SourceKind::Io)
    };
    error.effect(Effect::StagingOnly)
}

fn execute(job: &Job, root: &Path, plan: &RestorePlan, staging: &Staging) -> Result<Restored, SourceError> {
    let point = &plan.request.point;
    let only = components(&plan.request.scope)?;
    if staging.state == StageState::Exposed {
        return Err(SourceError::new(
            SourceKind::InvalidInput,
            "an exposed snapshot is for reading, not for restoring into",
        ));
    }
    let root = open(root)?;
    let (place, member) = locate(&root, point)?;
    let tree = members::open_tree(&place, &member).source(Effect::None)?;
    let into = open_staging(&staging.path)?;
    let whole = only.is_empty();
    let copying = Copying {
        job,
        dataset: &plan.request.target.dataset,
        total: plan.bytes,
        live: false,
        resume: true,
        only,
        reuse: None,
    };
    let copied = tree::copy(
        &copying,
        tree,
        into.try_clone()
            .during(|| "can't open staging".to_owned())
            .source(Effect::None)?,
    );
    // A snapshot is renamed before it is removed. If it is where it was, nothing was missing while it was read.
    let there = locate(&root, point);
    let outcome = match (copied, there) {
        (Ok(outcome), Ok(_)) => outcome,
        (_, Err(gone)) => return Err(gone.effect(Effect::StagingOnly)),
        (Err(fault), Ok(_)) => return Err(failed(fault)),
    };
    let told = |kind, what: String| SourceError::new(kind, what).effect(Effect::StagingOnly);
    if outcome.entries == 0 && !plan.request.may_be_empty() {
        return Err(told(
            SourceKind::NothingRestored,
            match &plan.request.scope {
                Scope::Whole => format!("recovery point {} of {} is empty", point.id, point.dataset),
                Scope::Path(path) => format!(
                    "there is no {path:?} in recovery point {} of {}",
                    point.id, point.dataset
                ),
            },
        ));
    }
    let record = member.intact().source(Effect::StagingOnly)?;
    let mut checked = Vec::new();
    if whole {
        if (outcome.files, outcome.bytes) != (record.files, record.bytes) {
            return Err(told(
                SourceKind::Corrupt,
                format!(
                    "the snapshot in {:?} is damaged: it holds {} files with {} bytes, and was taken with {} files and {} bytes",
                    member.path, outcome.files, outcome.bytes, record.files, record.bytes
                ),
            ));
        }
        checked.push("the number of files and bytes is the recorded one".to_owned());
    }
    let mut warnings = outcome.warnings;
    if record.torn_count > 0 {
        warnings.push(format!(
            "{} of its files were being written to when the snapshot was taken",
            record.torn_count
        ));
    }
    Ok(Restored {
        bytes: outcome.bytes,
        files: outcome.files,
        reused: outcome.reused,
        checked,
        warnings,
    })
}

#[async_trait]
impl RestoreSource for DirSource {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn caps(&self) -> SourceCaps {
        SourceCaps {
            kind: self.class,
            delivery: Delivery::Files,
            partial: true,
            verifies: false,
            ordered: false,
        }
    }

    async fn points(&self, cx: &Context, target: &Target) -> Result<Vec<RecoveryPoint>, SourceError> {
        let (this, target) = (self.clone(), target.clone());
        self.jobs
            .run(cx, move |job| {
                points(job, &this.name, &this.root, this.host.as_deref(), &target)
            })
            .await
    }

    async fn plan(&self, cx: &Context, request: &RestoreRequest) -> Result<RestorePlan, SourceError> {
        let (root, request) = (self.root.clone(), request.clone());
        self.jobs.run(cx, move |_| plan(&root, &request)).await
    }

    async fn execute(
        &self,
        cx: &Context,
        plan: &RestorePlan,
        staging: &Staging,
    ) -> Result<Restored, SourceError> {
        let (root, plan, staging) = (self.root.clone(), plan.clone(), staging.clone());
        self.jobs
            .run(cx, move |job| execute(job, &root, &plan, &staging))
            .await
    }
}
