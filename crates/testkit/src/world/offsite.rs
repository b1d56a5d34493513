//! [`MemOffsite`]: [`OffsiteRepo`] and [`RestoreSource`] over one of the world's repositories.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use reseed_core::error::{Effect, Error, Kind, OffsiteError, OffsiteKind, SourceError, SourceKind};
use reseed_core::names::{DatasetName, SourceName};
use reseed_core::offsite::{
    BackupOutcome, BackupReport, BackupRequest, CheckDepth, CheckReport, OffsiteCaps, RepoInfo, Usage,
};
use reseed_core::point::{RecoveryPoint, Target};
use reseed_core::source::{RestorePlan, RestoreRequest, Restored, SourceCaps, SourceClass};
use reseed_core::store::{Delivery, Staging};
use reseed_core::{Context, OffsiteRepo, RestoreSource};

use super::World;
use super::repo::{Damage, Repo, RepoConfig, RepoLock, RepoSnapshot};
use super::source::reach;
use super::state::{Link, State};
use super::wire::wanted;

/// The newest repository format that the fake knows.
const VERSION: u32 = 2;

/// One of the world's repositories, opened with a password.
#[derive(Debug, Clone)]
pub struct MemOffsite {
    pub(super) world: World,
    name: SourceName,
    password: String,
}

/// What can be wrong with a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepoFault {
    /// The line to it.
    Link(Link),
    /// Something else is in its place.
    Foreign,
    /// Its format is newer than anybody here knows.
    Newer,
    /// Another program holds an exclusive lock; `false` takes it away.
    Locked(bool),
    /// A lock that a dead program left.
    DeadLock,
    /// A bit of stored data is flipped.
    Flip(u64),
    /// A stored blob is gone.
    Lose(u64),
    /// So many bytes can still be stored.
    Free(Option<u64>),
    /// This file can't be read by backups.
    Unreadable(PathBuf),
}

/// What a lock that goes away with the call is: dropped, however the call ends.
pub(super) struct HeldLock<'a>(&'a MemOffsite, u64);

impl Drop for HeldLock<'_> {
    fn drop(&mut self) {
        self.0.repo(|repo| repo.locks.remove(&self.1));
    }
}

/// The kinds that both traits have, raised for either.
pub(super) struct Kinds<K> {
    none: K,
    password: K,
    locked: K,
    version: K,
    other: K,
}

pub(super) const OFFSITE: Kinds<OffsiteKind> = Kinds {
    none: OffsiteKind::NoRepository,
    password: OffsiteKind::WrongPassword,
    locked: OffsiteKind::Locked,
    version: OffsiteKind::UnsupportedVersion,
    other: OffsiteKind::InvalidInput,
};
const SOURCE: Kinds<SourceKind> = Kinds {
    none: SourceKind::NoRepository,
    password: SourceKind::WrongPassword,
    locked: SourceKind::Locked,
    version: SourceKind::Unsupported,
    other: SourceKind::InvalidInput,
};

impl MemOffsite {
    /// The repository of this name, with this password.
    pub fn new(world: &World, name: SourceName, password: &str) -> Self {
        world.lock().repos.entry(name.clone()).or_default();
        Self {
            world: world.clone(),
            name,
            password: password.to_owned(),
        }
    }

    pub(super) fn repo<R>(&self, with: impl FnOnce(&mut Repo) -> R) -> R {
        with(self.world.lock().repos.entry(self.name.clone()).or_default())
    }

    /// O2, in the order in which a real engine would find out.
    pub(super) fn opened<K: Kind>(&self, repo: &Repo, kinds: &Kinds<K>) -> Result<RepoConfig, Error<K>> {
        reach(&repo.link, &self.name)?;
        let fail = |kind, what: &str| Err(Error::new(kind, format!("{} {what}", self.name)));
        if repo.foreign {
            return fail(kinds.other, "is something else than a repository");
        }
        match &repo.config {
            None => fail(kinds.none, "is no repository"),
            Some(config) if config.password != self.password => fail(kinds.password, "has another password"),
            Some(config) if config.version > VERSION => fail(kinds.version, "is of a newer format"),
            Some(config) => Ok(config.clone()),
        }
    }

    pub(super) fn locked<K: Kind>(
        &self,
        kinds: &Kinds<K>,
        exclusive: bool,
    ) -> Result<HeldLock<'_>, Error<K>> {
        let taken = self.repo(|repo| {
            repo.locks.retain(|_, lock| !lock.dead);
            if let Some(other) = repo.locks.values().find(|lock| lock.exclusive || exclusive) {
                return Err(other.holder.clone());
            }
            repo.draws += 1;
            let lock = RepoLock {
                exclusive,
                holder: "reseed".to_owned(),
                dead: false,
            };
            repo.locks.insert(repo.draws, lock);
            Ok(repo.draws)
        });
        match taken {
            Ok(id) => Ok(HeldLock(self, id)),
            Err(holder) => Err(Error::new(
                kinds.locked,
                format!("{} is locked by {holder}", self.name),
            )),
        }
    }

    pub(super) fn listed(&self, repo: &Repo, target: Option<&Target>) -> Vec<RecoveryPoint> {
        let all = repo.snapshots.values().map(|snapshot| &snapshot.point);
        let mut points: Vec<_> = all
            .filter(|point| target.is_none_or(|target| target.dataset == point.dataset))
            .cloned()
            .collect();
        points.sort_by_key(|point| Reverse(point.taken_at));
        points
    }

    /// A point as it was asked for.
    fn point(&self, request: &BackupRequest, id: &str) -> RecoveryPoint {
        RecoveryPoint {
            id: request.point.clone(),
            dataset: request.target.dataset.clone(),
            source: self.name.clone(),
            locator: id.to_owned(),
            snapshot: request.snapshot.clone(),
            taken_at: request.taken_at,
            fingerprint: request.fingerprint,
            bytes: None,
            unseeded: request.unseeded,
            partial: false,
            altered: false,
        }
    }

    fn find(&self, request: &RestoreRequest) -> Result<super::Tree, SourceError> {
        self.repo(|repo| {
            self.opened(repo, &SOURCE)?;
            let Some(snapshot) = repo
                .snapshots
                .get(&request.point.locator)
                .filter(|snapshot| snapshot.point.id == request.point.id)
            else {
                let what = format!("{} has no point {}", self.name, request.point.id);
                return Err(SourceError::new(SourceKind::NoSuchPoint, what));
            };
            repo.tree(snapshot).map_err(|damage| {
                let (path, said) = match &damage {
                    Damage::Missing(path) => (path, "a blob is missing"),
                    Damage::Wrong(path) => (path, "a blob's hash is wrong"),
                };
                let what = format!("{} in {} is damaged", path.display(), self.name);
                SourceError::new(SourceKind::Corrupt, what).said(said)
            })
        })
    }

    async fn back_up(
        &self,
        cx: &Context,
        request: &BackupRequest,
        tree: &super::Tree,
    ) -> Result<BackupReport, OffsiteError> {
        let (mut content, mut added, mut files, mut bytes) = (Vec::new(), 0, 0, 0);
        let mut stored = tree.clone();
        let mut unreadable = Vec::new();
        for (path, node) in tree.entries() {
            let result = self.repo(|repo| {
                reach(&repo.link, &self.name)?;
                if repo.unreadable.contains(&request.path.join(path)) {
                    return Ok(None);
                }
                let super::NodeKind::File { bytes, .. } = &node.kind else {
                    return Ok(Some(None));
                };
                let before = repo.free;
                let (hash, new) = repo.store(bytes);
                if let Some(free) = before {
                    let Some(left) = free.checked_sub(new) else {
                        return Err(
                            OffsiteError::new(OffsiteKind::NoSpace, "the object store is full")
                                .effect(Effect::StagingOnly),
                        );
                    };
                    repo.free = Some(left);
                }
                Ok(Some(Some((hash, new, bytes.len() as u64))))
            })?;
            match result {
                None => {
                    unreadable.push(format!("{}: permission denied", path.display()));
                    stored.remove(path);
                }
                Some(None) => {}
                Some(Some((hash, new, len))) => {
                    files += 1;
                    bytes += len;
                    added += new;
                    content.push((path.clone(), hash));
                }
            }
            self.world.step(cx, Effect::StagingOnly).await?;
        }
        let outcome = if unreadable.is_empty() {
            BackupOutcome::Complete
        } else {
            BackupOutcome::Partial {
                unreadable: unreadable.len() as u64,
                examples: unreadable.into_iter().take(10).collect(),
            }
        };
        let snapshot_id = self.repo(|repo| {
            repo.draws += 1;
            let id = format!("{:08x}", repo.draws);
            let point = RecoveryPoint {
                bytes: Some(bytes),
                partial: outcome != BackupOutcome::Complete,
                ..self.point(request, &id)
            };
            let snapshot = RepoSnapshot {
                point,
                host: request.host.clone(),
                as_path: request.as_path.clone(),
                read_at: request.taken_at,
                tree: stored,
                content,
            };
            repo.snapshots.insert(id.clone(), snapshot);
            id
        });
        self.world.step(cx, Effect::Partial).await?;
        Ok(BackupReport {
            snapshot_id,
            outcome,
            files,
            bytes,
            added,
        })
    }
}

#[async_trait]
impl OffsiteRepo for MemOffsite {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn caps(&self) -> OffsiteCaps {
        OffsiteCaps {
            init: true,
            record: true,
        }
    }

    async fn init(&self, cx: &Context) -> Result<RepoInfo, OffsiteError> {
        self.world.step(cx, Effect::None).await?;
        let info = self.repo(|repo| {
            reach(&repo.link, &self.name)?;
            if repo.foreign || repo.config.is_some() {
                let what = format!("something is at {} already", self.name);
                return Err(OffsiteError::new(OffsiteKind::AlreadyExists, what));
            }
            let id = format!("mem-{}", self.name);
            repo.config = Some(RepoConfig {
                id: id.clone(),
                version: VERSION,
                password: self.password.clone(),
            });
            Ok(RepoInfo { id, version: VERSION })
        })?;
        self.world.step(cx, Effect::Partial).await?;
        Ok(info)
    }

    async fn open(&self, cx: &Context) -> Result<RepoInfo, OffsiteError> {
        self.world.step(cx, Effect::None).await?;
        let config = self.repo(|repo| self.opened(repo, &OFFSITE))?;
        Ok(RepoInfo {
            id: config.id,
            version: config.version,
        })
    }

    async fn backup(&self, cx: &Context, request: &BackupRequest) -> Result<BackupReport, OffsiteError> {
        self.world.step(cx, Effect::None).await?;
        self.repo(|repo| self.opened(repo, &OFFSITE))?;
        let Some(tree) = self.world.tree_at(&request.path) else {
            let what = format!("{} does not exist", request.path.display());
            return Err(OffsiteError::new(OffsiteKind::NotFound, what));
        };
        let _lock = self.locked(&OFFSITE, false)?;
        self.world.step(cx, Effect::None).await?;
        self.back_up(cx, request, &tree).await
    }

    async fn record(
        &self,
        cx: &Context,
        request: &BackupRequest,
        same_as: &RecoveryPoint,
        read_since: Timestamp,
    ) -> Result<Option<BackupReport>, OffsiteError> {
        self.world.step(cx, Effect::None).await?;
        self.repo(|repo| self.opened(repo, &OFFSITE))?;
        let _lock = self.locked(&OFFSITE, false)?;
        self.world.step(cx, Effect::None).await?;
        // The last step: what is there then isn't cancelled any more.
        self.repo(|repo| {
            let Some(same) = repo.snapshots.get(&same_as.locator) else {
                let what = format!("{} has no point {}", self.name, same_as.locator);
                return Err(OffsiteError::new(OffsiteKind::NotFound, what));
            };
            let own = same.host == request.host
                && same.point.dataset == request.target.dataset
                && same.as_path == request.as_path;
            if !own || same.point.partial || same.read_at < read_since {
                return Ok(None);
            }
            let mut snapshot = same.clone();
            repo.draws += 1;
            let id = format!("{:08x}", repo.draws);
            snapshot.point = RecoveryPoint {
                bytes: snapshot.point.bytes,
                ..self.point(request, &id)
            };
            let (files, bytes) = (snapshot.content.len() as u64, snapshot.point.bytes);
            repo.snapshots.insert(id.clone(), snapshot);
            Ok(Some(BackupReport {
                snapshot_id: id,
                outcome: BackupOutcome::Complete,
                files,
                bytes: bytes.unwrap_or(0),
                added: 0,
            }))
        })
    }

    async fn points(
        &self,
        cx: &Context,
        target: Option<&Target>,
    ) -> Result<Vec<RecoveryPoint>, OffsiteError> {
        self.world.step(cx, Effect::None).await?;
        self.repo(|repo| {
            self.opened(repo, &OFFSITE)?;
            Ok(self.listed(repo, target))
        })
    }

    async fn check(&self, cx: &Context, depth: CheckDepth) -> Result<CheckReport, OffsiteError> {
        self.world.step(cx, Effect::None).await?;
        self.repo(|repo| self.opened(repo, &OFFSITE))?;
        let _lock = self.locked(&OFFSITE, false)?;
        self.world.step(cx, Effect::None).await?;
        Ok(self.repo(|repo| look(repo, depth)))
    }

    async fn usage(&self, cx: &Context) -> Result<Usage, OffsiteError> {
        self.world.step(cx, Effect::None).await?;
        self.repo(|repo| {
            self.opened(repo, &OFFSITE)?;
            let objects = repo.objects();
            Ok(Usage {
                bytes: objects.values().sum(),
                objects: Some(objects.len() as u64),
            })
        })
    }
}

fn look(repo: &Repo, depth: CheckDepth) -> CheckReport {
    let mut report = CheckReport::default();
    let mut lost = BTreeSet::new();
    for (id, snapshot) in &repo.snapshots {
        for (path, hash) in &snapshot.content {
            if !repo.blobs.contains_key(hash) {
                report
                    .errors
                    .push(format!("{id}: {} has lost its data", path.display()));
                lost.insert(*hash);
            }
        }
    }
    for (at, (hash, blob)) in (0u32..).zip(&repo.blobs) {
        let read = match depth {
            CheckDepth::Structure => false,
            CheckDepth::Everything => true,
            CheckDepth::Part { n, of } => of > 0 && at % of == n.saturating_sub(1) % of,
        };
        if read {
            report.bytes_read += blob.bytes.len() as u64;
            if !blob.sound {
                let name = blake3::Hash::from_bytes(*hash).to_hex();
                report
                    .errors
                    .push(format!("blob {name} is not what its name says"));
                lost.insert(*hash);
            }
        }
    }
    let affected = repo.snapshots.values().filter(|snapshot| {
        let mut content = snapshot.content.iter();
        content.any(|(_, hash)| lost.contains(hash))
    });
    let affected: BTreeSet<DatasetName> = affected.map(|snapshot| snapshot.point.dataset.clone()).collect();
    report.affected = Some(affected.into_iter().collect());
    report
}

#[async_trait]
impl RestoreSource for MemOffsite {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn caps(&self) -> SourceCaps {
        SourceCaps {
            kind: SourceClass::Offsite,
            delivery: Delivery::Files,
            partial: true,
            verifies: true,
            ordered: false,
        }
    }

    async fn points(&self, cx: &Context, target: &Target) -> Result<Vec<RecoveryPoint>, SourceError> {
        self.world.step(cx, Effect::None).await?;
        self.repo(|repo| {
            self.opened(repo, &SOURCE)?;
            Ok(self.listed(repo, Some(target)))
        })
    }

    async fn plan(&self, cx: &Context, request: &RestoreRequest) -> Result<RestorePlan, SourceError> {
        self.world.step(cx, Effect::None).await?;
        let tree = wanted(&self.find(request)?, request)?;
        Ok(RestorePlan {
            request: request.clone(),
            bytes: Some(tree.size()),
            steps: vec![format!(
                "restore {} entries of {}",
                tree.len(),
                request.point.locator
            )],
        })
    }

    async fn execute(
        &self,
        cx: &Context,
        plan: &RestorePlan,
        staging: &Staging,
    ) -> Result<Restored, SourceError> {
        self.world.step(cx, Effect::None).await?;
        let _lock = self.locked(&SOURCE, false)?;
        self.world.step(cx, Effect::None).await?;
        let tree = wanted(&self.find(&plan.request)?, &plan.request)?;
        let mut restored = self.world.deliver(cx, &tree, Delivery::Files, staging).await?;
        restored.checked.push("every blob's hash".to_owned());
        Ok(restored)
    }
}

impl MemOffsite {
    /// The same as a trait object.
    pub fn shared(self) -> Arc<dyn OffsiteRepo> {
        Arc::new(self)
    }
}

impl World {
    /// Breaks a repository, or mends it.
    pub fn break_repo(&self, name: &SourceName, fault: RepoFault) -> bool {
        let mut state: std::sync::MutexGuard<'_, State> = self.lock();
        let repo = state.repos.entry(name.clone()).or_default();
        match fault {
            RepoFault::Link(link) => repo.link = link,
            RepoFault::Foreign => repo.foreign = true,
            RepoFault::Newer => {
                if let Some(config) = &mut repo.config {
                    config.version = VERSION + 1;
                }
            }
            RepoFault::Locked(false) => repo.locks.retain(|_, lock| !lock.exclusive),
            RepoFault::Locked(true) | RepoFault::DeadLock => {
                repo.draws += 1;
                let lock = RepoLock {
                    exclusive: true,
                    holder: "pid 4711 on other-host".to_owned(),
                    dead: fault == RepoFault::DeadLock,
                };
                repo.locks.insert(repo.draws, lock);
            }
            RepoFault::Flip(draw) => return repo.flip(draw),
            RepoFault::Lose(draw) => return repo.lose(draw),
            RepoFault::Free(bytes) => repo.free = bytes,
            RepoFault::Unreadable(path) => repo.unreadable.push(path),
        }
        true
    }

    /// Every object of a repository and its size.
    pub fn repo_objects(&self, name: &SourceName) -> BTreeMap<String, u64> {
        self.lock().repos.get(name).map(Repo::objects).unwrap_or_default()
    }

    /// Locks in a repository.
    pub fn repo_locks(&self, name: &SourceName) -> usize {
        self.lock().repos.get(name).map_or(0, |repo| repo.locks.len())
    }

    /// Takes a point away, as a prune elsewhere would.
    pub fn forget(&self, name: &SourceName, locator: &str) {
        if let Some(repo) = self.lock().repos.get_mut(name) {
            repo.snapshots.remove(locator);
        }
    }

    /// The trees of a repository's points that can still be read.
    pub fn repo_trees(&self, name: &SourceName) -> Vec<(RecoveryPoint, Option<super::Tree>)> {
        let state = self.lock();
        let Some(repo) = state.repos.get(name) else {
            return Vec::new();
        };
        let snapshots = repo.snapshots.values();
        snapshots
            .map(|snap| (snap.point.clone(), repo.tree(snap).ok()))
            .collect()
    }

    /// Whether a path is below a live dataset's mountpoint.
    pub fn is_live(&self, path: &Path) -> bool {
        let state = self.lock();
        let mut live = state.datasets.values().filter(|found| found.mounted);
        live.any(|found| path.starts_with(&found.mountpoint))
    }
}
