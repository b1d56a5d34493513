//! [`ReplicaSource`]: a target's copies in a second pool, here or on another host, received into staging.
//!
//! The stream is received unmounted and resumably, without the properties that would make it mount, or fill the pool;
//! send's output is receive's input, and nothing is copied through us. What arrived must have the point's guid. An
//! interrupted stream goes on where it stopped, when the token is of the same snapshot; otherwise what arrived of it is
//! thrown away: it is in staging, and of no use. A run that is killed leaves the two ends of its pipe behind; they end by
//! themselves, for `zfs send` tells how far it is to nobody then, and until they have, the next run waits ([`STILL_ARRIVING`]).

use std::time::Duration;

use async_trait::async_trait;
use reseed_core::error::{Effect, SourceError, SourceKind};
use reseed_core::event::Event;
use reseed_core::names::{DatasetName, SourceName};
use reseed_core::point::{RecoveryPoint, Target};
use reseed_core::source::{RestorePlan, RestoreRequest, Restored, SourceCaps, SourceClass};
use reseed_core::store::{Delivery, Staging};
use reseed_core::{Context, RestoreSource};

use super::fresh::{self, Fresh};
use super::location::Location;
use super::mapping::Mapping;
use super::origin::{self, Whose};
use super::parse::{Facts, Listed, Said};
use super::record::StageRecord;
use super::space::{self, Wanted};
use super::store::NativeStore;
use super::tool::{Stream, Tool, not_cancelled};
use super::transfer::{self, Own};
use super::{argv, engine, error, list, names, points, staging, work};

/// How often, and how long apart, it is looked whether what a killed run left running has ended. `zfs send` tells how far it is once
/// a second, and dies of it when nobody listens any more.
const STILL_ARRIVING: (u32, Duration) = (40, Duration::from_millis(500));

/// Replicas in a second pool.
#[derive(Debug, Clone)]
pub struct ReplicaSource {
    name: SourceName,
    store: NativeStore,
    there: Tool,
    mapping: Mapping,
    whose: Whose,
}

impl ReplicaSource {
    /// The replicas of a store's datasets that `mapping` names, at `location`.
    pub fn new(name: SourceName, store: &NativeStore, location: Location, mapping: Mapping) -> Self {
        Self {
            name,
            store: store.clone(),
            there: store.tool.at(location),
            mapping,
            whose: Whose::Anybodys,
        }
    }

    /// Offers only what this host, which is called so, replicated. One host's data must not come back as another's service of the
    /// same name. What says nothing of whose it is counts as this host's.
    #[must_use]
    pub fn of_host(mut self, host: impl Into<String>) -> Self {
        self.whose = Whose::Ours(host.into());
        self
    }

    /// Offers only what another host replicated, and says so: for a restore of its data on this one. What says nothing of whose it
    /// is is left out.
    #[must_use]
    pub fn of_other_host(mut self, host: impl Into<String>) -> Self {
        self.whose = Whose::Theirs(host.into());
        self
    }

    pub(crate) fn store(&self) -> &NativeStore {
        &self.store
    }

    /// The tools where the replicas are.
    pub(crate) fn there(&self) -> &Tool {
        &self.there
    }

    pub(crate) fn replica(&self, target: &Target) -> Result<DatasetName, SourceError> {
        self.mapping.replica(&target.dataset).map_err(|error| {
            let what = format!(
                "{} can't have a replica below {}",
                target.dataset,
                self.mapping.root()
            );
            SourceError::new(SourceKind::InvalidInput, what).said(error)
        })
    }

    /// A point's snapshot, as it is now, in a lineage that is offered.
    pub(crate) async fn original(
        &self,
        cx: &Context,
        point: &RecoveryPoint,
        target: &Target,
    ) -> Result<Listed, SourceError> {
        let original = points::exact(&self.there, cx, point, &self.replica(target)?).await?;
        origin::require_wanted(&self.there, cx, &self.whose, &original.dataset).await?;
        Ok(original)
    }

    /// An empty answer is only an answer when the place that all replicas are in is there.
    async fn root_is_there(&self, cx: &Context) -> Result<(), SourceError> {
        let root = self.mapping.root();
        if engine::surely_there(&self.there, cx, std::slice::from_ref(root)).await {
            return Ok(());
        }
        match list::fact::<SourceKind>(&self.there, cx, root).await? {
            Said::Facts(_) => Ok(()),
            Said::NotThere => {
                list::pools_usable::<SourceKind>(&self.there, cx, [root]).await?;
                let what = format!("there is no {root}, where the replicas should be");
                Err(SourceError::new(SourceKind::NoRepository, what))
            }
            Said::Unclear(why) => {
                let what = format!("whether {root} is there can't be told");
                Err(SourceError::new(SourceKind::Unreachable, what).said(why))
            }
        }
    }

    /// Brings the point's snapshot into a dataset of ours, and looks whether that has arrived.
    pub(crate) async fn bring(
        &self,
        cx: &Context,
        plan: &RestorePlan,
        name: &DatasetName,
    ) -> Result<(Fetched, Listed), SourceError> {
        let fetched = self.fetch(cx, plan, name).await?;
        let staging_only = |error: SourceError| error.effect(Effect::StagingOnly);
        let arrived: Vec<Listed> = list::snapshots(&self.store.tool, cx, std::slice::from_ref(name))
            .await
            .map_err(staging_only)?;
        match arrived.into_iter().find(|one| one.guid == fetched.original.guid) {
            Some(copy) => Ok((fetched, copy)),
            None => {
                let what = format!(
                    "what arrived in {name} is not snapshot {} (guid {})",
                    plan.request.point.locator, fetched.original.guid
                );
                Err(staging_only(SourceError::new(SourceKind::Corrupt, what)))
            }
        }
    }

    /// Brings what is missing of the point.
    async fn fetch(
        &self,
        cx: &Context,
        plan: &RestorePlan,
        name: &DatasetName,
    ) -> Result<Fetched, SourceError> {
        let (tries, pause) = STILL_ARRIVING;
        work::patiently_while(tries, pause, is_arriving, || self.fetch_once(cx, plan, name)).await
    }

    async fn fetch_once(
        &self,
        cx: &Context,
        plan: &RestorePlan,
        name: &DatasetName,
    ) -> Result<Fetched, SourceError> {
        let here = &self.store.tool;
        let (target, point) = (&plan.request.target, &plan.request.point);
        // What was set aside may be encrypted where what is continued isn't, and may be all that there is.
        let original = self.original(cx, point, target).await?;
        let above = staging::above(name);
        let asked: Vec<DatasetName> = above.iter().chain([name]).cloned().collect();
        let (said, back) = tokio::join!(
            list::facts::<SourceKind>(here, cx, &asked),
            transfer::way_back::<SourceKind>(&self.there, cx, &original.dataset),
        );
        let (mut said, back) = (said?, back?);
        let mut fetched = Fetched {
            original,
            space: back.space,
            reused: 0,
        };
        match said.pop() {
            Some(Said::NotThere) => {}
            Some(Said::Facts(facts)) => {
                if let Some(reused) = self.go_on(cx, plan, name, &fetched.original, &facts).await? {
                    fetched.reused = reused;
                    return Ok(fetched);
                }
            }
            Some(Said::Unclear(why)) => {
                let what = format!("the state of {name} can't be told");
                return Err(SourceError::new(SourceKind::Target, what).said(why));
            }
            None => {
                let what = format!("nothing was said of {name}");
                return Err(SourceError::new(SourceKind::Target, what));
            }
        }
        let form = argv::Form::of(back.encrypted, true);
        let never = never_anew(here, cx, (&above, &said), form).await?;
        // It would land in clear text.
        let fresh = match form == argv::Form::Plain && never == argv::NEVER_RECEIVED {
            true => self.key(cx, target, name).await?,
            false => Fresh::default(),
        };
        staging::make_missing(here, cx, name, &above, &said)
            .await
            .map_err(|error| error.convert(SourceKind::Target))?;
        let record = points::begun(cx, plan)?;
        let original = &fetched.original;
        let send = argv::send_full(&original.dataset, &original.name, form);
        let mut own = vec![("canmount", "noauto"), (argv::STAGE, record.as_str())];
        own.extend(fresh.key());
        let receive = argv::receive(name, &own, never);
        let stream = followed(plan, &original.dataset, name);
        let what = format!("can't bring {}@{} into {name}", original.dataset, original.name);
        error::piped(
            self.there.send(cx, send, here, receive, stream).await,
            what,
            Effect::StagingOnly,
        )?;
        Ok(fetched)
    }

    /// With which key of its own what isn't encrypted is received, if the dataset that it stands in for has one, or is declared to: it may have
    /// been sent in the clear, and must not come to stand so.
    async fn key(&self, cx: &Context, target: &Target, name: &DatasetName) -> Result<Fresh, SourceError> {
        let declared = self.store.declared_of(&target.dataset);
        let fresh = fresh::fresh(&self.store.tool, cx, target, declared)
            .await
            .map_err(|error| error.convert(SourceKind::Target))?;
        // What only files are copied out of goes away again.
        let stays = names::staging(&target.dataset).is_ok_and(|staged| staged == *name);
        match fresh.refused().filter(|_| stays) {
            // No other source's copy could be put there either.
            Some(refused) => {
                let refused: SourceError = refused.convert(SourceKind::Target);
                Err(refused.with_kind(SourceKind::Target))
            }
            None => Ok(fresh),
        }
    }

    /// What an earlier attempt left: done, gone on with, or thrown away (none).
    async fn go_on(
        &self,
        cx: &Context,
        plan: &RestorePlan,
        name: &DatasetName,
        original: &Listed,
        facts: &Facts,
    ) -> Result<Option<u64>, SourceError> {
        let here = &self.store.tool;
        if !StageRecord::of(facts).is_some_and(|record| record.is_for(&plan.request.point)) {
            let what = format!(
                "{name} is there, and was not made for point {}",
                plan.request.point.id
            );
            return Err(
                SourceError::new(SourceKind::Target, what).hint("discard what is staged, then run it again")
            );
        }
        let Some(token) = &facts.resume_token else {
            let there: Vec<Listed> = list::snapshots(here, cx, std::slice::from_ref(name)).await?;
            if there.iter().any(|one| one.guid == original.guid) {
                return Ok(Some(original.referenced));
            }
            let what = format!(
                "{name} is there, and does not hold {}",
                plan.request.point.locator
            );
            return Err(
                SourceError::new(SourceKind::Target, what).hint("discard what is staged, then run it again")
            );
        };
        let decoded = transfer::decode::<SourceKind>(&self.there, cx, token).await?;
        let Some(decoded) = decoded.filter(|decoded| decoded.to == original.guid) else {
            cx.emit(Event::Warning {
                service: None,
                message: format!(
                    "what had arrived of another snapshot in {name} is of no use and is thrown away"
                ),
                hint: None,
            });
            let what = format!("can't throw away what arrived in {name}");
            here.change::<SourceKind>(cx, argv::receive_abort(name), what, Effect::StagingOnly)
                .await?;
            return Ok(None);
        };
        let (send, receive) = (argv::send_rest(token), argv::receive_rest(name));
        let stream = followed(plan, &original.dataset, name);
        let what = format!(
            "can't bring the rest of {} into {name}",
            plan.request.point.locator
        );
        let sent = self.there.send(cx, send, here, receive, stream).await;
        let said = |words: &str| match &sent {
            Ok(output) => output
                .stages
                .iter()
                .any(|stage| stage.stderr.text().contains(words)),
            Err(_) => false,
        };
        let busy = said("partially-complete state") || said("is busy");
        let broke_off = said("incomplete stream");
        let Err(error) = error::piped::<SourceKind>(sent, what, Effect::StagingOnly) else {
            return Ok(Some(decoded.bytes));
        };
        // More has arrived than the token tells, and not by this stream: somebody else was still receiving. `zfs` has odd words
        // for it ("incompatible embedded data stream feature with encrypted receive").
        let now = list::fact::<SourceKind>(here, cx, name).await.ok();
        let moved = matches!(&now, Some(Said::Facts(now)) if now.resume_token.as_ref() != Some(token));
        // A time that is up, or a target that is full, stays what it is. Where the other one has brought all of it there is
        // nothing to go on with, and `zfs` says that the dataset is there.
        let unclear = matches!(error.kind(), SourceKind::Io | SourceKind::AlreadyExists);
        Err(match unclear && (busy || (moved && !broke_off)) {
            true => error.with_kind(SourceKind::Busy),
            false => error,
        })
    }
}

/// What was brought.
pub(crate) struct Fetched {
    /// The snapshot there.
    original: Listed,
    /// With which it is to come back.
    space: Wanted,
    /// Bytes of it that were there already.
    reused: u64,
}

/// Somebody else is receiving into it.
fn is_arriving(error: &SourceError) -> bool {
    error.kind() == SourceKind::Busy
}

/// A restore is told of as what it restores, and is never slowed down.
fn followed<'a>(plan: &'a RestorePlan, from: &'a DatasetName, into: &'a DatasetName) -> Stream<'a> {
    Stream {
        of: &plan.request.target.dataset,
        from,
        into,
        limit: None,
    }
}

/// What must not come along into a new dataset below these. What isn't encrypted becomes so where the nearest one that is there is: a stream
/// with properties says `encryption=off` of itself, and would land in clear text, without a word.
async fn never_anew(
    tool: &Tool,
    cx: &Context,
    (above, said): (&[DatasetName], &[Said]),
    form: argv::Form,
) -> Result<&'static [&'static str], SourceError> {
    let mut nearest = above.iter().zip(said).rev();
    let nearest = nearest.find(|(_, said)| matches!(said, Said::Facts(_)));
    let Some((above, _)) = nearest.filter(|_| form == argv::Form::Plain) else {
        return Ok(argv::NEVER_RECEIVED);
    };
    let what = format!("can't tell whether {above} is encrypted");
    let (key_of, status) = tool
        .read::<SourceKind, _>(cx, argv::get_key(above), &what, transfer::parse_key)
        .await?;
    if !transfer::is_root(&key_of) {
        return Ok(argv::NEVER_RECEIVED);
    }
    if status != "available" {
        let what =
            format!("{above} is encrypted, and so would be what is restored below it: its key is not loaded");
        return Err(SourceError::new(SourceKind::Target, what).hint(format!(
            "load it with `zfs load-key '{key_of}'`, then run it again; nothing has been received"
        )));
    }
    Ok(argv::NEVER_RECEIVED_ENCRYPTING)
}

/// What arrived is encrypted, and only an operator has its key: no other source's copy would open without it either, and
/// a start without data would be wrong. What is `restored` under another name stays its own encryption root, and asks for its key at each start.
pub(crate) fn locked(name: &DatasetName, restored: Option<&DatasetName>) -> SourceError {
    let what = format!("{name} has arrived and can't be opened: its encryption key is not loaded");
    let after = restored.map_or(String::new(), |dataset| {
        format!(
            ". It asks for its key at each start then: once it is restored, `zfs change-key -i '{dataset}'` lets it have the key of the dataset \
             above it, if it had that, and `zfs set keylocation=file:///PATH '{dataset}'` its own from a file"
        )
    });
    SourceError::new(SourceKind::Target, what)
        .effect(Effect::StagingOnly)
        .hint(format!(
            "load it with `zfs load-key '{name}'`, or `zfs load-key -L file:///PATH '{name}'` where the key is in a file, then run it again; what \
             has arrived is kept{after}"
        ))
}

#[async_trait]
impl RestoreSource for ReplicaSource {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn caps(&self) -> SourceCaps {
        SourceCaps {
            kind: SourceClass::Replica,
            delivery: Delivery::Native,
            partial: false,
            verifies: true,
            ordered: true,
        }
    }

    async fn points(&self, cx: &Context, target: &Target) -> Result<Vec<RecoveryPoint>, SourceError> {
        not_cancelled::<SourceKind>(cx)?;
        let lineage = self.replica(target)?;
        let of = (&target.dataset, &lineage);
        let offered = origin::lineages(&self.there, cx, &self.name, &self.whose, of).await?;
        let found = points::points_in(&self.there, cx, &self.name, target, &lineage, &offered).await?;
        if found.is_empty() {
            self.root_is_there(cx).await?;
        }
        Ok(found)
    }

    async fn plan(&self, cx: &Context, request: &RestoreRequest) -> Result<RestorePlan, SourceError> {
        not_cancelled::<SourceKind>(cx)?;
        points::whole(request)?;
        let original = self.original(cx, &request.point, &request.target).await?;
        let staged =
            names::staging(&request.target.dataset).map_err(|error| error.convert(SourceKind::Target))?;
        Ok(RestorePlan {
            request: request.clone(),
            bytes: Some(original.referenced),
            steps: vec![
                format!(
                    "send {} and receive it as {staged}, unmounted",
                    request.point.locator
                ),
                format!("compare its guid with {}", original.guid),
            ],
        })
    }

    async fn execute(
        &self,
        cx: &Context,
        plan: &RestorePlan,
        staging: &Staging,
    ) -> Result<Restored, SourceError> {
        not_cancelled::<SourceKind>(cx)?;
        points::whole(&plan.request)?;
        let (target, point) = (&plan.request.target, &plan.request.point);
        let name = points::staged_name(plan, staging)?;
        let (fetched, copy) = self.bring(cx, plan, &name).await?;
        let (original, reused) = (fetched.original, fetched.reused);
        let staging_only = |error: SourceError| error.effect(Effect::StagingOnly);
        let here = &self.store.tool;
        let (has, wanted) = (Own::of(&copy), Own::of(&original));
        transfer::carry_over::<SourceKind>(here, cx, &name, &copy.name, &has, &wanted)
            .await
            .map_err(staging_only)?;
        let wanted = self.store.declared_space(&target.dataset, fetched.space);
        let mut warnings = space::come_back::<SourceKind>(here, cx, &name, &wanted)
            .await
            .map_err(staging_only)?;
        let place = names::place(&self.store.places, "look", &target.dataset);
        let full = format!("{name}@{}", copy.name);
        let (census, busy) = match points::census(full, place, point).await {
            Err(error)
                if transfer::is_locked::<SourceKind>(here, cx, &name)
                    .await
                    .unwrap_or(false) =>
            {
                return Err(locked(&name, Some(&target.dataset)).said(error));
            }
            census => census.map_err(staging_only)?,
        };
        warnings.extend(busy);
        Ok(Restored {
            bytes: census.bytes,
            files: census.files,
            reused: reused.min(census.bytes),
            checked: vec![
                "ZFS checked every block that was sent".to_owned(),
                format!("the snapshot that arrived has guid {}", original.guid),
            ],
            warnings,
        })
    }
}
