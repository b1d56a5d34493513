//! What stands at a target on its way aside, and back (S11, S13): the renames of live data.
//!
//! Promises that whoever can't go on leaves it as it was: under its name, mounted where it was. Where that can't be had either,
//! the error says under which name the data is now, and with which commands it comes back. What happened is never taken from
//! a command's exit but looked up: one that failed may have done its work.

use std::collections::BTreeMap;
use std::path::Path;

use reseed_core::Context;
use reseed_core::error::{Effect, StoreError, StoreKind};
use reseed_core::names::{DatasetName, Guid, HoldTag, RunId};
use reseed_core::point::Target;
use reseed_core::store::Replace;

use super::mounts::{self, Mount, Standing};
use super::parse::{Facts, Said};
use super::settle::{known, stale};
use super::tool::Tool;
use super::{argv, inspect, list, names, work};

/// What was set aside, and how it stood.
#[derive(Debug, Clone)]
pub(crate) struct Aside {
    pub(crate) name: DatasetName,
    guid: Guid,
    canmount: String,
    /// Where it was mounted, and whether `zfs mount` does that.
    mounted: Option<Mount>,
    legacy: bool,
}

/// What an earlier run has set aside.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) name: DatasetName,
    /// `zfs mount` doesn't mount it.
    pub(crate) legacy: bool,
}

impl Aside {
    /// Whether it was mounted at the target's place, over whatever lies there.
    pub(crate) fn hid(&self, target: &Target) -> bool {
        let place = inspect::real(&target.mountpoint);
        self.mounted.as_ref().is_some_and(|mount| mount.point == place)
    }
}

/// What was set aside for this target and has this guid. Not being able to tell is an error.
pub(crate) async fn find(
    tool: &Tool,
    cx: &Context,
    target: &Target,
    guid: Guid,
) -> Result<Option<Kept>, StoreError> {
    let kept = list::asides::<StoreKind>(tool, cx, &target.dataset).await?;
    let said = list::facts::<StoreKind>(tool, cx, &kept).await?;
    let mut unclear = None;
    for (name, said) in kept.into_iter().zip(said) {
        match said {
            Said::Facts(facts) if facts.guid == guid => {
                let legacy = is_legacy(&facts);
                return Ok(Some(Kept { name, legacy }));
            }
            Said::Facts(_) | Said::NotThere => {}
            Said::Unclear(why) => unclear = Some((name, why)),
        }
    }
    let Some((name, why)) = unclear else {
        return Ok(None);
    };
    Err(StoreError::new(StoreKind::Io, format!("the state of {name} can't be told")).said(why))
}

/// What was set aside for this target by one of these runs.
pub(crate) async fn of_runs(
    tool: &Tool,
    cx: &Context,
    target: &Target,
    runs: [&RunId; 2],
) -> Result<Option<DatasetName>, StoreError> {
    let kept = list::asides::<StoreKind>(tool, cx, &target.dataset).await?;
    let mine = |name: &DatasetName| {
        runs.iter()
            .any(|run| names::is_aside_of(&target.dataset, name, run))
    };
    Ok(kept.into_iter().rev().find(mine))
}

/// The first free name to set a target aside under in this run.
pub(crate) async fn free_name(tool: &Tool, cx: &Context, target: &Target) -> Result<DatasetName, StoreError> {
    let mut nth = 1;
    loop {
        let name = names::aside(&target.dataset, &cx.run, nth)?;
        if known(tool, cx, &name).await?.is_none() {
            return Ok(name);
        }
        nth += 1;
    }
}

/// Renames what stands at the target, looks again, and unmounts it. After an error it stands there as before, or the error
/// says where it is.
pub(crate) async fn set_aside(
    tool: &Tool,
    cx: &Context,
    target: &Target,
    live: &Facts,
    replace: Replace,
) -> Result<Aside, StoreError> {
    let staging_only = |error: StoreError| error.effect(Effect::StagingOnly);
    let aside = Aside {
        name: free_name(tool, cx, target).await.map_err(staging_only)?,
        guid: live.guid,
        canmount: live.canmount.text.clone(),
        mounted: only_mount(target, &target.dataset).await.map_err(staging_only)?,
        legacy: is_legacy(live),
    };
    let what = format!("can't set {} aside as {}", target.dataset, aside.name);
    let rename = argv::rename(&target.dataset, &aside.name);
    let mut result = tool
        .change::<StoreKind>(cx, rename, what, Effect::StagingOnly)
        .await
        .map(drop);
    if result.is_ok() {
        result = match known(tool, cx, &aside.name).await {
            Ok(Some(found)) if found.guid == live.guid => {
                emptied(tool, cx, target, (&aside.name, aside.legacy), replace).await
            }
            Ok(_) => Err(stale(format!("{} was replaced meanwhile", target.dataset))),
            Err(error) => Err(error),
        };
    }
    match result {
        Ok(()) => Ok(aside),
        Err(error) => Err(back(tool, cx, target, &aside, error).await),
    }
}

/// Looks at what was renamed aside, still mounted; unmounts it and tells it not to mount by itself.
pub(crate) async fn emptied(
    tool: &Tool,
    cx: &Context,
    target: &Target,
    (aside, legacy): (&DatasetName, bool),
    replace: Replace,
) -> Result<(), StoreError> {
    let mounted = only_mount(target, aside).await?;
    if let Some(mount) = &mounted {
        if replace == Replace::OnlyEmpty {
            let (path, device) = (mount.point.clone(), mount.device);
            let found = work::blocking("can't look at what was set aside", move || {
                mounts::look(&path, Some(device))
                    .map_err(|error| StoreError::io("can't look at what was set aside", &error))
            })
            .await?;
            if found != Standing::EmptyDir {
                return Err(stale("data has come to stand at the target; it is left alone"));
            }
        }
        let what = format!("can't unmount {:?}", mount.point);
        work::patiently(|| {
            let what = what.clone();
            async move {
                match legacy {
                    true => unmounted(aside, &mount.point, what).await,
                    false => tool
                        .change::<StoreKind>(cx, argv::unmount(aside), what, Effect::StagingOnly)
                        .await
                        .map(drop),
                }
            }
        })
        .await?;
        // Somebody may have mounted it elsewhere since.
        if let Some(left) = only_mount(target, aside).await? {
            return Err(also_mounted(target, &left.point));
        }
    }
    let what = format!("can't keep {aside} from being mounted");
    let args = argv::set(aside, &[("canmount", "noauto")]);
    tool.change::<StoreKind>(cx, args, what, Effect::Partial).await?;
    Ok(())
}

/// Puts what was set aside back in its place, and answers the error for which that is done: with no more than staging left
/// behind, or with where the data is.
pub(crate) async fn back(
    tool: &Tool,
    cx: &Context,
    target: &Target,
    aside: &Aside,
    error: StoreError,
) -> StoreError {
    let (name, dataset) = (&aside.name, &target.dataset);
    let place = aside
        .mounted
        .as_ref()
        .map_or(&target.mountpoint, |mount| &mount.point);
    let mounting = mounting(dataset, Some(place), aside.legacy);
    let by_hand = format!(
        "{} bring it back",
        by_hand(dataset, name, &aside.canmount, &mounting)
    );
    match renamed_back(tool, cx, target, aside).await {
        Back::There => {}
        Back::Aside(why) => {
            let told = format!("what stood at {dataset} is now {name} ({why}); {by_hand}");
            return and_hint(error, &told).effect(Effect::Partial);
        }
        Back::Unclear(why) => {
            let told = format!(
                "whether what stood at {dataset} is there, or {name} now, can't be told ({why}); if it is that, {by_hand}"
            );
            return and_hint(error, &told).effect(Effect::Unknown);
        }
    }
    match mounted_again(tool, cx, target, aside).await {
        Ok(()) => error.effect(Effect::StagingOnly),
        Err(why) => {
            let told = format!(
                "{dataset} is as it was, only not mounted ({why}): `zfs set canmount={} '{dataset}'` and {mounting}",
                aside.canmount
            );
            and_hint(error, &told).effect(Effect::Partial)
        }
    }
}

/// Lets go of what replications held of what is set aside, while they sent it or as the base of the next. Nothing is sent of it any more, and as long as something is held, whoever wants to
/// remove it can't. What can't be let go is of no matter to a restore: `zfs` tells of it then.
pub(crate) async fn let_go(tool: &Tool, cx: &Context, aside: &DatasetName) {
    let Ok(found) = list::snapshots::<StoreKind>(tool, cx, std::slice::from_ref(aside)).await else {
        return;
    };
    let Ok(held) = list::holds::<StoreKind>(tool, cx, &found).await else {
        return;
    };
    let mut of: BTreeMap<&HoldTag, Vec<_>> = BTreeMap::new();
    for one in &found {
        let tags = held.get(&format!("{aside}@{}", one.name)).into_iter().flatten();
        let ours = |tag: &&HoldTag| {
            [argv::SENDING, argv::BASE]
                .iter()
                .any(|begin| tag.as_str().starts_with(begin))
        };
        for tag in tags.filter(ours) {
            of.entry(tag).or_default().push((aside, &one.name));
        }
    }
    for (tag, names) in of {
        for part in names.chunks(argv::HELD_AT_ONCE) {
            let args = argv::release(tag, part.iter().copied());
            let what = format!("can't let go of snapshots of {aside}");
            let _ = tool.change::<StoreKind>(cx, args, what, Effect::None).await;
        }
    }
}

/// The commands that bring back what was set aside, which has been told not to mount by itself.
fn by_hand(dataset: &DatasetName, aside: &DatasetName, canmount: &str, mounting: &str) -> String {
    format!("`zfs rename -u '{aside}' '{dataset}'`, `zfs set canmount={canmount} '{dataset}'` and {mounting}")
}

/// The command that mounts it.
fn mounting(dataset: &DatasetName, place: Option<&Path>, legacy: bool) -> String {
    match (legacy, place) {
        (false, _) => format!("`zfs mount '{dataset}'`"),
        (true, Some(place)) => format!("`mount -t zfs '{dataset}' '{}'`", place.display()),
        (true, None) => format!("`mount -t zfs '{dataset}' PLACE`"),
    }
}

/// The words for a target whose data an interrupted promotion has left aside.
pub(crate) fn told(dataset: &DatasetName, place: Option<&Path>, kept: &Kept) -> String {
    let aside = &kept.name;
    let mounting = mounting(dataset, place, kept.legacy);
    format!(
        "what stood here is {aside} now, set aside by a run that was cut off; the same restore again finishes that, or {} bring it back \
         (if something empty is called {dataset} now, rename that first)",
        by_hand(dataset, aside, "on", &mounting)
    )
}

/// Whether a dataset is mounted by `mount`, out of `/etc/fstab` say: `zfs` mounts and unmounts none of that kind.
pub(crate) fn is_legacy(facts: &Facts) -> bool {
    facts.mountpoint.text == "legacy"
}

async fn unmounted(dataset: &DatasetName, place: &Path, what: String) -> Result<(), StoreError> {
    let (dataset, place) = (dataset.clone(), place.to_owned());
    work::blocking("can't unmount", move || {
        mounts::unmount_legacy(dataset.as_str(), &place).map_err(|error| StoreError::io(what, &error))
    })
    .await
}

/// Where what was set aside is after it was to be renamed back.
enum Back {
    /// At its place.
    There,
    /// Aside still, and why.
    Aside(String),
    /// One of both; why that isn't known.
    Unclear(String),
}

async fn renamed_back(tool: &Tool, cx: &Context, target: &Target, aside: &Aside) -> Back {
    let mut refused = None;
    for _ in 0..2 {
        let both = [aside.name.clone(), target.dataset.clone()];
        let said = match list::facts::<StoreKind>(tool, cx, &both).await {
            Ok(said) => said,
            Err(error) => return Back::Unclear(error.to_string()),
        };
        match (&said[0], &said[1]) {
            (_, Said::Facts(live)) if live.guid == aside.guid => return Back::There,
            (Said::Facts(kept), Said::NotThere) if kept.guid == aside.guid => {}
            (Said::Facts(kept), Said::Facts(_)) if kept.guid == aside.guid => {
                return Back::Aside("something else has come to stand there".to_owned());
            }
            other => return Back::Unclear(format!("zfs says {other:?}")),
        }
        if let Some(refused) = refused.take() {
            return Back::Aside(refused);
        }
        // Whatever it says: what became of it is looked up.
        let args = argv::rename(&aside.name, &target.dataset);
        let what = "it can't be renamed back";
        let renamed = tool.change::<StoreKind>(cx, args, what, Effect::Partial).await;
        refused = Some(match renamed {
            Ok(_) => "it was renamed back, and is not there".to_owned(),
            Err(error) => error.to_string(),
        });
    }
    Back::Unclear(refused.unwrap_or_default())
}

/// Lets it mount by itself again, if it did, and mounts it where it was mounted.
async fn mounted_again(tool: &Tool, cx: &Context, target: &Target, aside: &Aside) -> Result<(), StoreError> {
    let Some(facts) = known(tool, cx, &target.dataset).await? else {
        return Err(stale(format!("{} went away", target.dataset)));
    };
    if facts.canmount.text != aside.canmount {
        let what = format!("can't set canmount of {}", target.dataset);
        let args = argv::set(&target.dataset, &[("canmount", &aside.canmount)]);
        tool.change::<StoreKind>(cx, args, what, Effect::Partial).await?;
    }
    match &aside.mounted {
        Some(mount) if !is_mounted_at(&target.dataset, &mount.point).await? => {
            mount_at(tool, cx, &target.dataset, &mount.point, aside.legacy).await
        }
        _ => Ok(()),
    }
}

/// Mounts a dataset where its properties say, or, with `mountpoint=legacy`, where it belongs.
pub(crate) async fn mount_at(
    tool: &Tool,
    cx: &Context,
    dataset: &DatasetName,
    place: &Path,
    legacy: bool,
) -> Result<(), StoreError> {
    if !legacy {
        let what = format!("can't mount {dataset}");
        let mounted = tool
            .change::<StoreKind>(cx, argv::mount(dataset), what, Effect::Partial)
            .await;
        if is_mounted_at(dataset, place).await? {
            return Ok(());
        }
        let there = mount_of(dataset).await?;
        return match mounted {
            Err(error) => Err(error),
            Ok(_) => Err(StoreError::new(
                StoreKind::Io,
                format!(
                    "{dataset} was mounted at {:?}, not at {place:?}",
                    there.map(|m| m.point)
                ),
            )),
        };
    }
    let (dataset, place) = (dataset.to_string(), place.to_owned());
    work::blocking("can't mount", move || {
        let mount = || {
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount(dataset.as_str(), &place, "zfs", flags, None)
        };
        std::fs::create_dir_all(&place)
            .and_then(|()| mount().map_err(std::io::Error::from))
            .map_err(|error| StoreError::io(format!("can't mount {dataset} at {place:?}"), &error))
    })
    .await
}

/// Where a dataset is mounted.
pub(crate) async fn mount_of(dataset: &DatasetName) -> Result<Option<Mount>, StoreError> {
    let dataset = dataset.clone();
    work::blocking("can't read what is mounted", move || {
        let all = mounts::now().map_err(|error| StoreError::io("can't read what is mounted", &error))?;
        Ok(mounts::of(&all, dataset.as_str()).cloned())
    })
    .await
}

/// Whether all of a dataset is mounted there.
pub(crate) async fn is_mounted_at(dataset: &DatasetName, place: &Path) -> Result<bool, StoreError> {
    let (dataset, place) = (dataset.clone(), place.to_owned());
    work::blocking("can't read what is mounted", move || {
        let all = mounts::now().map_err(|error| StoreError::io("can't read what is mounted", &error))?;
        let place = inspect::real(&place);
        let mut whole = all.iter().filter(|mount| mount.is_dataset(dataset.as_str()));
        Ok(whole.any(|mount| mount.point == place))
    })
    .await
}

/// Where a dataset that is to go aside, or is, is mounted. A second place where it is seen, or a directory of it, is an error: only one of them
/// is unmounted, and whoever uses the other would go on with what is set aside.
async fn only_mount(target: &Target, dataset: &DatasetName) -> Result<Option<Mount>, StoreError> {
    let (target, dataset) = (target.clone(), dataset.clone());
    work::blocking("can't read what is mounted", move || {
        let all = mounts::now().map_err(|error| StoreError::io("can't read what is mounted", &error))?;
        let place = inspect::real(&target.mountpoint);
        let mut found: Vec<&Mount> = mounts::all_of(&all, dataset.as_str()).collect();
        let at_place = found
            .iter()
            .rposition(|mount| mount.whole && mount.point == place);
        let mounted = at_place.or_else(|| found.iter().rposition(|mount| mount.whole));
        let mounted = mounted.map(|at| found.remove(at).clone());
        match found.first() {
            Some(other) => Err(also_mounted(&target, &other.point)),
            None => Ok(mounted),
        }
    })
    .await
}

fn also_mounted(target: &Target, place: &Path) -> StoreError {
    let what = format!(
        "{}, or a directory of it, is also mounted at {place:?}, where what is set aside would go on being seen",
        target.dataset
    );
    StoreError::new(StoreKind::Busy, what).hint(format!(
        "unmount that first, and mount it again afterwards: `umount '{}'`",
        place.display()
    ))
}

/// An error with something more to know, before what it said already.
pub(crate) fn and_hint(error: StoreError, more: &str) -> StoreError {
    let hint = match error.what_to_do() {
        Some(hint) => format!("{more}; {hint}"),
        None => more.to_owned(),
    };
    error.hint(hint)
}
