//! The place that a target is mounted at: what is there, and what lies beneath.
//!
//! Nothing is mounted over what can be seen. What lies below the mount of what is set aside was hidden all the time: to refuse because of it
//! would point the operator, who sees the live data there, at that. It stays, and is told of.

use std::path::Path;

use reseed_core::Context;
use reseed_core::error::{StoreError, StoreKind};
use reseed_core::event::Event;
use reseed_core::names::DatasetName;
use reseed_core::point::Target;
use reseed_core::store::Replace;

use super::settle::{forbids, known};
use super::tool::Tool;
use super::{aside, inspect, mounts, names, work};

/// Makes sure that mounting the target hides nothing that wasn't `hidden` all the time: whether there is something of that kind. What an
/// earlier run has set aside and left mounted there is unmounted: when it is empty, or exactly what may be replaced.
pub(crate) async fn clear_place(
    tool: &Tool,
    cx: &Context,
    target: &Target,
    replace: Replace,
    hidden: &mut bool,
) -> Result<bool, StoreError> {
    let place = target.mountpoint.clone();
    let mount = work::blocking("can't read what is mounted", move || {
        let all = mounts::now().map_err(|error| StoreError::io("can't read what is mounted", &error))?;
        Ok(mounts::at(&all, &inspect::real(&place)).cloned())
    })
    .await?;
    if let Some(mount) = mount {
        let source = mount.source.to_string_lossy().into_owned();
        if mount.fstype == "zfs" && names::is_aside(&target.dataset, &source) {
            let aside = DatasetName::new(source)
                .map_err(|error| StoreError::new(StoreKind::Io, "an odd name is mounted").said(error))?;
            let there = known(tool, cx, &aside).await?;
            let replace = match (replace, &there) {
                (Replace::SetAside { guid }, Some(there)) if there.guid == guid => replace,
                _ => Replace::OnlyEmpty,
            };
            let legacy = there.as_ref().is_some_and(aside::is_legacy);
            aside::emptied(tool, cx, target, (&aside, legacy), replace).await?;
            *hidden = true;
        }
    }
    let (target, place, hidden) = (target.clone(), target.mountpoint.clone(), *hidden);
    work::blocking("can't look at the target's place", move || {
        let all = mounts::now().map_err(|error| StoreError::io("can't read what is mounted", &error))?;
        let real = inspect::real(&place);
        let Some(condition) = inspect::occupied(&target, &real, &all) else {
            return Ok(false);
        };
        if !hidden {
            return Err(forbids(&target, &condition));
        }
        let files = mounts::at(&all, &real).is_none()
            && matches!(mounts::look(&real, None), Ok(mounts::Standing::PopulatedDir));
        match files {
            true => Ok(true),
            // What is seen there, once all is as it was, is the live data.
            false => Err(forbids(&target, &condition).hint(beneath(&place))),
        }
    })
    .await
}

/// Tells of what lies beneath.
pub(crate) fn tell(cx: &Context, target: &Target) {
    cx.emit(Event::Warning {
        service: None,
        message: format!(
            "something lies below the mount of {}, at {:?}: it was hidden before, is hidden again, and stays",
            target.dataset, target.mountpoint
        ),
        hint: Some(beneath(&target.mountpoint)),
    });
}

/// How what lies below a mount is looked at. To move it away is nobody's business but the operator's.
fn beneath(place: &Path) -> String {
    let above = place.parent().unwrap_or(place);
    let leaf = place.file_name().unwrap_or_default();
    format!(
        "to see it: `mount --bind {above:?} /mnt`, then look into {:?}",
        Path::new("/mnt").join(leaf)
    )
}
