//! A snapshot that is on another machine, brought here as a dataset of ours to copy files out of it, and removed again.
//!
//! All of the snapshot comes over the wire, however little of it is wanted: ZFS sends no part of one. What was weighed instead:
//! - Mounting it there and copying by `tar` takes root on the other machine and, of a raw replica, the key, which is not there on
//!   purpose; and nothing would have checked the bytes by the time they are here. The user that replicas are sent to needs
//!   nothing but `send`.
//! - An increment over a snapshot that is here too would be smaller. But an increment leads forward only, and what one wants back
//!   from a replica is older than what is still here.
//!
//! The dataset carries a staging record, as what is staged does, under a name of its own: an interrupted restore in place stays as it
//! is. What an interrupted run left is gone on with by the next for the same point, gives way to another point, and is removed by the next
//! preseed that finds the service's data in place ([`Leftover::files`](reseed_core::store::Leftover)).

use std::path::PathBuf;

use reseed_core::Context;
use reseed_core::error::{Effect, SourceError, SourceKind, StoreError};
use reseed_core::names::{DatasetName, Guid};
use reseed_core::point::Target;
use reseed_core::source::{RestorePlan, RestoreRequest, Restored};

use super::super::parse::{Facts, Listed, Said};
use super::super::record::StageRecord;
use super::super::replica::{self, ReplicaSource};
use super::super::{list, names, settle, staging, transfer};

/// What was fetched.
#[derive(Debug)]
pub(super) struct Fetched {
    /// The snapshot here.
    pub(super) full: String,
    /// Where it is to be mounted.
    pub(super) place: PathBuf,
    dataset: DatasetName,
    guid: Guid,
}

fn target(error: StoreError) -> SourceError {
    error.convert(SourceKind::Target)
}

/// What is under our name, if anything is.
async fn there(
    source: &ReplicaSource,
    cx: &Context,
    name: &DatasetName,
    of: &Target,
) -> Result<Option<(Facts, StageRecord)>, SourceError> {
    match list::fact::<SourceKind>(&source.store().tool, cx, name).await? {
        Said::NotThere => Ok(None),
        Said::Facts(facts) => {
            let record = staging::ours(name, of, &facts).map_err(target)?;
            Ok(Some((*facts, record)))
        }
        Said::Unclear(why) => {
            let what = format!("the state of {name} can't be told");
            Err(SourceError::new(SourceKind::Target, what).said(why))
        }
    }
}

/// How it would be done, and how many bytes would come over the wire for it.
pub(super) async fn plan(
    source: &ReplicaSource,
    cx: &Context,
    request: &RestoreRequest,
    original: &Listed,
    what: &str,
) -> Result<RestorePlan, SourceError> {
    let name = names::fetched(&request.target.dataset).map_err(target)?;
    let here = match there(source, cx, &name, &request.target).await? {
        Some((facts, record)) if record.is_for(&request.point) => match &facts.resume_token {
            None => original.referenced,
            Some(token) => transfer::decode::<SourceKind>(source.there(), cx, token)
                .await?
                .filter(|token| token.to == original.guid)
                .map_or(0, |token| token.bytes),
        },
        _ => 0,
    };
    let bytes = original.referenced.saturating_sub(here);
    let kept = match here {
        0 => String::new(),
        here => format!(", {here} of which an earlier run brought"),
    };
    let mut steps = vec![
        format!(
            "receive {} as {name}, unmounted: all of it, about {} bytes{kept}, for ZFS sends no part of a snapshot",
            request.point.locator, original.referenced
        ),
        "mount it read-only in a place of reseed's own".to_owned(),
        format!("copy {what} out of it, unmount it, and remove {name}"),
    ];
    let back = transfer::way_back::<SourceKind>(source.there(), cx, &original.dataset).await?;
    if back.encrypted {
        let key = format!(
            "end here as long as its key isn't loaded on this machine, and keep what has arrived: `zfs load-key '{name}'`"
        );
        steps.insert(1, key);
    }
    Ok(RestorePlan {
        request: request.clone(),
        bytes: Some(bytes),
        steps,
    })
}

/// Brings the point's snapshot here.
pub(super) async fn fetch(
    source: &ReplicaSource,
    cx: &Context,
    plan: &RestorePlan,
) -> Result<Fetched, SourceError> {
    let (request, store) = (&plan.request, source.store());
    let dataset = names::fetched(&request.target.dataset).map_err(target)?;
    if let Some((facts, record)) = there(source, cx, &dataset, &request.target).await?
        && !record.is_for(&request.point)
    {
        settle::remove_fetched(&store.tool, cx, &store.places, &request.target, facts.guid)
            .await
            .map_err(target)?;
    }
    let brought = source.bring(cx, plan, &dataset).await;
    let found = there(source, cx, &dataset, &request.target).await?;
    let Some((facts, _)) = found else {
        brought?;
        let what = format!("{dataset} went away");
        return Err(SourceError::new(SourceKind::StalePlan, what).effect(Effect::StagingOnly));
    };
    let fetched = Fetched {
        full: String::new(),
        place: names::place(&store.places, "files", &dataset),
        guid: facts.guid,
        dataset,
    };
    match brought {
        Ok((_, copy)) => Ok(Fetched {
            full: format!("{}@{}", fetched.dataset, copy.name),
            ..fetched
        }),
        // It is something else, and nothing can go on with it.
        Err(error) if error.kind() == SourceKind::Corrupt => {
            Err(fetched.removed(source, cx, plan, error).await)
        }
        Err(error) => Err(error),
    }
}

impl Fetched {
    /// Removes what was fetched once its files are copied. What failed keeps it for the next try, unless it is of no use.
    pub(super) async fn end(
        self,
        source: &ReplicaSource,
        cx: &Context,
        plan: &RestorePlan,
        copied: Result<Restored, SourceError>,
    ) -> Result<Restored, SourceError> {
        let store = source.store();
        match copied {
            Ok(mut restored) => {
                restored.checked.push(format!(
                    "ZFS checked every block that was sent, and what arrived is {}",
                    plan.request.point.locator
                ));
                let target = &plan.request.target;
                if let Err(error) =
                    settle::remove_fetched(&store.tool, cx, &store.places, target, self.guid).await
                {
                    restored
                        .warnings
                        .push(format!("{} is left over: {error}", self.dataset));
                }
                Ok(restored)
            }
            Err(error) if error.kind() == SourceKind::Corrupt => {
                Err(self.removed(source, cx, plan, error).await)
            }
            Err(error) => {
                let locked = transfer::is_locked::<SourceKind>(&store.tool, cx, &self.dataset).await;
                if locked.unwrap_or(false) {
                    return Err(replica::locked(&self.dataset, None).said(error));
                }
                let effect = match error.may_have() {
                    Effect::Unknown => Effect::Unknown,
                    _ => Effect::StagingOnly,
                };
                let kept = format!(
                    "{} is kept for the next try; `reseed preseed` removes it",
                    self.dataset
                );
                let hint = match error.what_to_do() {
                    Some(hint) => format!("{hint}; {kept}"),
                    None => kept,
                };
                Err(error.effect(effect).hint(hint))
            }
        }
    }

    async fn removed(
        &self,
        source: &ReplicaSource,
        cx: &Context,
        plan: &RestorePlan,
        error: SourceError,
    ) -> SourceError {
        let store = source.store();
        let target = &plan.request.target;
        match settle::remove_fetched(&store.tool, cx, &store.places, target, self.guid).await {
            Ok(_) => error,
            Err(left) => error.hint(format!("{} is left over: {left}", self.dataset)),
        }
    }
}
