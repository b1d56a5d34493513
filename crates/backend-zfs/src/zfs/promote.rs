//! The renames that make a staged dataset the target (S11, S12), and how they are taken back.
//!
//! Order, and what a crash between two steps leaves:
//! 1. The staged dataset gets a record that says what it is about to become, bound to its guid. (Staged still.)
//! 2. What stands at the target is renamed aside ([`aside`]), while it is mounted, and looked at again: if a service has
//!    written to it meanwhile, or uses it, it is renamed back, still mounted. (The target is absent; `inspect` knows what is
//!    mounted at its place for something set aside.) Then it is unmounted, and told not to mount by itself.
//! 3. The staged dataset is renamed to the target: from here on the restored data is what stands there, and the rest is
//!    `Finish`. (Unmounted, told by `inspect` as promoted.)
//! 4. Properties that staging had changed are set right and it is mounted; its topmost directory gets the owner and mode that are
//!    declared ([`owner`]); what would have been in the way comes now
//!    ([`fresh`](super::fresh)). A clone of what was set aside is promoted
//!    (`zfs promote`, as often as it takes: that may be a clone of what was set aside before): the snapshots up to the restored one come along, so history and the base of the next replication
//!    stay with the live dataset, and what was set aside no longer carries it. Newer snapshots stay aside. None is lost.
//! 5. The marker is written, and then the record is taken away.
//!
//! What fails before the third step is taken back: the target stands as it was. What fails after it isn't: the data is there,
//! the error says so and where what stood there is, and the same request goes on.

use std::collections::BTreeSet;
use std::path::Path;

use reseed_core::Context;
use reseed_core::error::{Effect, StoreError, StoreKind};
use reseed_core::event::Event;
use reseed_core::names::{DatasetName, Guid};
use reseed_core::ownership::Ownership;
use reseed_core::point::{Marker, Target};
use reseed_core::store::{Condition, Replace, Settled};

use super::aside::{self, Aside, mount_at, mount_of};
use super::parse::{Facts, Origin, Said, Value};
use super::record::{self, StageRecord};
use super::settle::{forbids, known, stale, standing, write_marker};
use super::snapshots::calm;
use super::staging::{ours, staging_place};
use super::tool::Tool;
use super::{argv, clear, inspect, list, names, work};
use super::{fresh, mounts, owner};

/// Says that a target carries this very marker already: the same request, settled before.
pub(crate) fn already(facts: &Facts, marker: &Marker) -> Option<Settled> {
    (record::marker(facts).as_ref() == Some(marker)).then(|| Settled {
        guid: Some(facts.guid),
        ..Settled::default()
    })
}

/// The target's place as a property's value.
pub(crate) fn mountpoint_text(target: &Target) -> Result<&str, StoreError> {
    target.mountpoint.to_str().ok_or_else(|| {
        let what = format!(
            "{:?} is not text, which a mountpoint of ZFS must be",
            target.mountpoint
        );
        StoreError::new(StoreKind::InvalidInput, what)
    })
}

/// What is declared of a target that counts when it is put in its place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AsDeclared<'a> {
    pub(crate) canmount: Option<&'a str>,
    /// It is mounted by others than `zfs` (`mountpoint=legacy`), out of `/etc/fstab` say.
    pub(crate) legacy: bool,
    pub(crate) owner: Option<&'a Ownership>,
}

/// Puts what is staged in the target's place.
pub(crate) async fn promote(
    tool: &Tool,
    cx: &Context,
    places: &Path,
    target: &Target,
    (replace, declared): (Replace, AsDeclared<'_>),
    marker: &Marker,
) -> Result<Settled, StoreError> {
    mountpoint_text(target)?;
    let name = names::staging(&target.dataset)?;
    let live = known(tool, cx, &target.dataset).await?;
    let Some(staged) = known(tool, cx, &name).await? else {
        return promoted_before(tool, cx, target, live, (marker, declared.owner)).await;
    };
    let mut record = ours(&name, target, &staged)?;
    if staged.resume_token.is_some() {
        return Err(stale(format!(
            "{name} holds a stream that was only received in part"
        )));
    }
    if let Some(live) = &live
        && let Some(done) = already(live, marker)
    {
        // Another staging has begun since; it is not what the marker tells of.
        return Ok(done);
    }
    let there = standing(tool, cx, target).await?;
    let aside = to_set_aside(tool, cx, target, live.as_ref(), &there, replace, &record).await?;
    record.promoting = Some(staged.guid);
    record.over = match replace {
        Replace::SetAside { guid } => Some(guid),
        Replace::OnlyEmpty => None,
    };
    // Where nothing stands there, this staging may have set it aside before it was cut off: then its record knows.
    // What has come to stand there since then is nothing's predecessor.
    let stub = matches!((&live, replace), (Some(live), Replace::SetAside { guid }) if live.guid != guid);
    if let Some(live) = live.as_ref().filter(|_| !stub) {
        let own = |value: &Value, text| value.origin == Origin::Local && value.text == text;
        // Also where that is inherited: what mounts it by `/etc/fstab` finds it with no other.
        record.mountpoint = aside::is_legacy(live).then(|| live.mountpoint.text.clone());
        if own(&live.canmount, "noauto") {
            record.later.insert("canmount".to_owned(), "noauto".to_owned());
        }
    }
    // `off` can't be: it is to be mounted here.
    match declared.canmount {
        Some("noauto") => record.later.insert("canmount".to_owned(), "noauto".to_owned()),
        Some(_) => record.later.remove("canmount"),
        None => None,
    };
    if live.is_none() && record.over.is_none() && declared.legacy {
        record.mountpoint = Some("legacy".to_owned());
    }
    let text = record.write()?;
    super::tool::not_cancelled::<StoreKind>(cx)?;
    if stub && mount_of(&target.dataset).await?.is_none() {
        holds_nothing(places, target).await?;
    }

    let cx = &calm(cx);
    let staging_only = |error: StoreError| error.effect(Effect::StagingOnly);
    work::unmount(staging_place(places, &target.dataset))
        .await
        .map_err(staging_only)?;
    let what = format!("can't prepare {name}");
    let args = argv::set(&name, &[(argv::STAGE, &text), ("canmount", "noauto")]);
    tool.change::<StoreKind>(cx, args, what, Effect::StagingOnly)
        .await?;
    let (mut hidden, mut beneath) = (false, false);
    let set_aside = match aside {
        Some(live) => {
            let (look, earlier) = match stub {
                false => (replace, None),
                true => (
                    Replace::OnlyEmpty,
                    earlier_aside(tool, cx, target, replace, &record)
                        .await
                        .map_err(staging_only)?,
                ),
            };
            let aside = aside::set_aside(tool, cx, target, &live, look).await?;
            hidden = aside.hid(target);
            let done = into_place(tool, cx, target, &name, staged.guid, (replace, &mut hidden)).await;
            match done {
                Ok(lies) => beneath = lies,
                Err(error) => return Err(not_in_place(tool, cx, target, &aside, &staged, error).await),
            }
            if stub {
                cx.emit(Event::Warning {
                    service: None,
                    message: format!(
                        "what had come to stand at {} meanwhile is {} now",
                        target.dataset, aside.name
                    ),
                    hint: None,
                });
            }
            Some(earlier.unwrap_or(aside.name))
        }
        None => {
            let earlier = earlier_aside(tool, cx, target, replace, &record)
                .await
                .map_err(staging_only)?;
            let done = into_place(tool, cx, target, &name, staged.guid, (replace, &mut hidden)).await;
            let refused = match done {
                Ok(lies) => {
                    beneath = lies;
                    None
                }
                Err(error) => Some(error.effect(Effect::StagingOnly)),
            };
            if let Some(error) = refused {
                return Err(match earlier.filter(|_| replace != Replace::OnlyEmpty) {
                    None => error,
                    Some(kept) => {
                        let told = format!(
                            "what stood at {} was set aside by an earlier run: {kept}",
                            target.dataset
                        );
                        aside::and_hint(error, &told).effect(Effect::Partial)
                    }
                });
            }
            earlier
        }
    };
    let behind = |error| stands(target, set_aside.as_ref(), beneath, error);
    let Some(facts) = known(tool, cx, &target.dataset).await.map_err(behind)? else {
        return Err(behind(stale(format!("{} went away", target.dataset))).effect(Effect::Unknown));
    };
    rest(
        tool,
        cx,
        target,
        &facts,
        (&record, declared.owner, hidden),
        (set_aside.as_ref(), marker),
    )
    .await
    .map_err(|error| behind(in_part(error)))?;
    Ok(Settled {
        set_aside: set_aside.map(|name| name.to_string()),
        guid: Some(facts.guid),
        quarantined: None,
    })
}

/// The third step. What is at its place then is looked up when the rename says that it failed. What lies there and was `hidden` by what has
/// just been unmounted is as hidden by what is mounted next, and that is told: whether anything is.
async fn into_place(
    tool: &Tool,
    cx: &Context,
    target: &Target,
    name: &DatasetName,
    guid: Guid,
    (replace, hidden): (Replace, &mut bool),
) -> Result<bool, StoreError> {
    let beneath = clear::clear_place(tool, cx, target, replace, hidden).await?;
    if beneath {
        clear::tell(cx, target);
    }
    let what = format!("can't rename {name} to {}", target.dataset);
    let renamed = tool
        .change::<StoreKind>(cx, argv::rename(name, &target.dataset), what, Effect::Partial)
        .await;
    let Err(error) = renamed else {
        return Ok(beneath);
    };
    match list::fact::<StoreKind>(tool, cx, &target.dataset).await {
        Ok(Said::Facts(found)) if found.guid == guid => Ok(beneath),
        _ if error.kind() == StoreKind::AlreadyExists => Err(stale(format!(
            "something has come to stand at {}",
            target.dataset
        ))),
        _ => Err(error),
    }
}

/// What was set aside goes back, unless what is staged stands in its place after all, or may.
async fn not_in_place(
    tool: &Tool,
    cx: &Context,
    target: &Target,
    aside: &Aside,
    staged: &Facts,
    error: StoreError,
) -> StoreError {
    match list::fact::<StoreKind>(tool, cx, &target.dataset).await {
        Ok(Said::Facts(found)) if found.guid == staged.guid => {
            stands(target, Some(&aside.name), false, error)
        }
        _ => aside::back(tool, cx, target, aside, error).await,
    }
}

/// An error after the third step. What lies beneath is to be seen from then on, and may be somebody's: the next run hides nothing of it.
fn stands(target: &Target, aside: Option<&DatasetName>, beneath: bool, error: StoreError) -> StoreError {
    let effect = match error.may_have() {
        Effect::Unknown => Effect::Unknown,
        _ => Effect::Partial,
    };
    let kept = aside.map_or(String::new(), |aside| format!(", what stood there is {aside}"));
    let away = match beneath {
        true => format!(", once what lies at {:?} is moved away", target.mountpoint),
        false => String::new(),
    };
    let told = format!(
        "what was restored is {} now{kept}; the same command again finishes it{away}",
        target.dataset
    );
    aside::and_hint(error, &told).effect(effect)
}

/// Nothing is staged: the request was settled before, or cut off after the rename.
async fn promoted_before(
    tool: &Tool,
    cx: &Context,
    target: &Target,
    live: Option<Facts>,
    (marker, owner): (&Marker, Option<&Ownership>),
) -> Result<Settled, StoreError> {
    let nothing = || stale(format!("nothing is staged for {}", target.dataset));
    let live = live.ok_or_else(nothing)?;
    if let Some(settled) = already(&live, marker) {
        return Ok(settled);
    }
    let record = StageRecord::promoted(&target.dataset, &live)
        .filter(|record| marker_is_of(marker, record))
        .ok_or_else(nothing)?;
    complete(tool, &calm(cx), target, &live, (&record, owner), marker).await?;
    Ok(Settled {
        guid: Some(live.guid),
        ..Settled::default()
    })
}

fn marker_is_of(marker: &Marker, record: &StageRecord) -> bool {
    match &marker.state {
        reseed_core::point::MarkerState::Restored { source, point, .. } => {
            *point == record.point.id && *source == record.point.source
        }
        _ => false,
    }
}

/// Looks into what has come to the target's name and isn't mounted: only what is empty may be renamed for what was set aside before.
async fn holds_nothing(places: &Path, target: &Target) -> Result<(), StoreError> {
    let place = names::place(places, "stub", &target.dataset);
    work::mount::<StoreKind>(target.dataset.to_string(), place.clone(), true).await?;
    let at = place.clone();
    let found = work::blocking("can't look at what is not mounted", move || {
        mounts::look(&at, None).map_err(|error| StoreError::io("can't look at what is not mounted", &error))
    })
    .await;
    work::unmount::<StoreKind>(place).await?;
    if found? == mounts::Standing::EmptyDir {
        return Ok(());
    }
    Err(stale(format!(
        "{} isn't mounted and holds data, so it is left alone",
        target.dataset
    ))
    .hint("look at it, and give it another name if what was set aside is to come back"))
}

/// Checks that what stands at the target may be replaced; what has to be set aside for it.
async fn to_set_aside(
    tool: &Tool,
    cx: &Context,
    target: &Target,
    live: Option<&Facts>,
    there: &Condition,
    replace: Replace,
    record: &StageRecord,
) -> Result<Option<Facts>, StoreError> {
    let goes_on = match replace {
        Replace::SetAside { guid } if record.over == Some(guid) => {
            let aside = inspect::left_aside(tool, cx, target, live, guid).await?;
            aside.is_some() && matches!(there, Condition::Unmounted { .. })
        }
        _ => false,
    };
    let allowed = match (there, replace) {
        (Condition::Absent | Condition::Empty, Replace::OnlyEmpty) => true,
        // This very staging was cut off after it had set aside exactly that.
        _ if goes_on => true,
        (
            Condition::Empty | Condition::Populated | Condition::Unmounted { .. },
            Replace::SetAside { guid },
        ) => {
            if live.map(|live| live.guid) != Some(guid) {
                let what = format!(
                    "{} is another dataset than the one that was to be set aside",
                    target.dataset
                );
                return Err(stale(what));
            }
            true
        }
        // A run that was cut off after it had set aside exactly that.
        (Condition::Absent, Replace::SetAside { guid }) => {
            if aside::find(tool, cx, target, guid).await?.is_none() {
                return Err(stale(format!(
                    "{}, which was to be set aside, is gone",
                    target.dataset
                )));
            }
            true
        }
        _ => false,
    };
    if !allowed {
        return Err(forbids(target, there));
    }
    let Some(live) = live else { return Ok(None) };
    if let Some(child) = list::first_child::<StoreKind>(tool, cx, &target.dataset).await? {
        let what = format!(
            "{} has the dataset {child} below it, which a rename would take along",
            target.dataset
        );
        return Err(StoreError::new(StoreKind::Unsupported, what)
            .hint("declare datasets that are not nested, or restore the inner ones by hand"));
    }
    Ok(Some(live.clone()))
}

/// What an earlier run has set aside for this target: exactly that, where the request says what; otherwise only what the run that
/// staged this, or this one, has renamed. Whatever else lies aside is older, and never stood here meanwhile.
async fn earlier_aside(
    tool: &Tool,
    cx: &Context,
    target: &Target,
    replace: Replace,
    record: &StageRecord,
) -> Result<Option<DatasetName>, StoreError> {
    match replace {
        Replace::OnlyEmpty => aside::of_runs(tool, cx, target, [&record.run, &cx.run]).await,
        Replace::SetAside { guid } => {
            let found = aside::find(tool, cx, target, guid).await?;
            Ok(found.map(|kept| kept.name))
        }
    }
}

/// What comes after the rename: properties, mount, clone and origin turned round, marker, record. Its errors are of something
/// that has been done in part.
pub(crate) async fn complete(
    tool: &Tool,
    cx: &Context,
    target: &Target,
    facts: &Facts,
    (record, owner): (&StageRecord, Option<&Ownership>),
    marker: &Marker,
) -> Result<(), StoreError> {
    // It is only let go of what is held there: not to find it is of no matter.
    let aside = earlier_aside(tool, cx, target, replaced(record), record).await;
    let aside = aside.ok().flatten();
    let (how, end) = ((record, owner, false), (aside.as_ref(), marker));
    rest(tool, cx, target, facts, how, end).await.map_err(in_part)
}

/// What was to be replaced, as a request says it.
fn replaced(record: &StageRecord) -> Replace {
    let over = record.over;
    over.map_or(Replace::OnlyEmpty, |guid| Replace::SetAside { guid })
}

fn in_part(error: StoreError) -> StoreError {
    match error.may_have() {
        Effect::Unknown => error,
        _ => error.effect(Effect::Partial),
    }
}

/// Makes the target nobody's clone. What was set aside may itself be a clone of what was set aside before it: after one `zfs promote` the
/// target is a clone of that.
async fn take_over(tool: &Tool, cx: &Context, target: &Target, facts: &Facts) -> Result<(), StoreError> {
    let mut clone_of = facts.clone_of.clone();
    let mut taken = BTreeSet::new();
    while let Some(origin) = clone_of.filter(|origin| names::is_aside(&target.dataset, origin)) {
        let what = format!("can't take the snapshots of {origin} over to {}", target.dataset);
        if !taken.insert(origin) {
            // It was promoted, and is a clone of the same again.
            return Err(StoreError::new(StoreKind::Io, what));
        }
        tool.change::<StoreKind>(cx, argv::promote(&target.dataset), what, Effect::Partial)
            .await?;
        clone_of = known(tool, cx, &target.dataset)
            .await?
            .and_then(|facts| facts.clone_of);
    }
    Ok(())
}

async fn rest(
    tool: &Tool,
    cx: &Context,
    target: &Target,
    facts: &Facts,
    (record, owner, mut hidden): (&StageRecord, Option<&Ownership>, bool),
    (aside, marker): (Option<&DatasetName>, &Marker),
) -> Result<(), StoreError> {
    let wanted = record.mountpoint.as_deref().unwrap_or(mountpoint_text(target)?);
    let mut later = record.later.clone();
    if !aside::is_mounted_at(&target.dataset, &target.mountpoint).await? {
        clear::clear_place(tool, cx, target, replaced(record), &mut hidden).await?;
        if facts.mountpoint.text != wanted {
            // While it is `noauto`: setting a mountpoint would mount it.
            let what = format!("can't set the mountpoint of {}", target.dataset);
            let args = argv::set(&target.dataset, &[("mountpoint", wanted)]);
            tool.change::<StoreKind>(cx, args, what, Effect::Partial).await?;
        }
        let canmount = later.remove("canmount").unwrap_or_else(|| "on".to_owned());
        if facts.canmount.text != canmount {
            let what = format!("can't set canmount of {}", target.dataset);
            let args = argv::set(&target.dataset, &[("canmount", &canmount)]);
            tool.change::<StoreKind>(cx, args, what, Effect::Partial).await?;
        }
        mount_at(tool, cx, &target.dataset, &target.mountpoint, wanted == "legacy").await?;
    }
    take_over(tool, cx, target, facts).await?;
    // Before what makes it read-only.
    owner::declared(tool.runner(), cx, &target.dataset, owner).await;
    fresh::apply(tool, cx, &target.dataset, &later).await?;
    // As long as it can be finished, or nobody would come back for it.
    if let Some(aside) = aside {
        aside::let_go(tool, cx, aside).await;
    }
    write_marker(tool, cx, target, facts.guid, marker).await?;
    let what = format!("can't take the staging record off {}", target.dataset);
    let args = argv::inherit(&target.dataset, argv::STAGE);
    tool.change::<StoreKind>(cx, args, what, Effect::Partial).await?;
    Ok(())
}
