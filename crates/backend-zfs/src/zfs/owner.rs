//! Whose a dataset's topmost directory is: looked at, and set as declared, through the open directory itself.
//!
//! Only of a mounted dataset, and only of its own topmost directory: a bind mount of a directory inside of it is another one, and so
//! is what was mounted over it. Nothing below is touched. A mode that isn't declared stays, also the bits that the kernel takes away
//! when a directory's owner changes.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use reseed_core::Context;
use reseed_core::error::{Common, Effect, Error, StoreError, StoreKind};
use reseed_core::exec::{Command, Runner};
use reseed_core::names::DatasetName;
use reseed_core::ownership::{Account, DirMode, Ownership};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid};
use serde::Serialize;

use super::error::FromFault;
use super::{fresh, mounts, work};

/// What a directory has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DirFacts {
    /// Its user's number.
    pub uid: u32,
    /// Its group's number.
    pub gid: u32,
    /// Its permissions.
    pub mode: DirMode,
}

/// What a directory is to have; what isn't given stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DirWanted {
    /// Its user's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Its group's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Its permissions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<DirMode>,
}

impl DirWanted {
    /// Whether a directory has it already.
    pub fn is_had_by(&self, has: &DirFacts) -> bool {
        self.uid.is_none_or(|uid| uid == has.uid)
            && self.gid.is_none_or(|gid| gid == has.gid)
            && self.mode.is_none_or(|mode| mode == has.mode)
    }
}

/// What is declared, in numbers of this machine.
///
/// # Errors
/// `NotFound` for a name that it doesn't know.
pub(crate) async fn resolve<K: FromFault>(
    runner: &dyn Runner,
    cx: &Context,
    declared: &Ownership,
) -> Result<DirWanted, Error<K>> {
    Ok(DirWanted {
        uid: id::<K>(runner, cx, "passwd", "user", declared.owner.as_ref()).await?,
        gid: id::<K>(runner, cx, "group", "group", declared.group.as_ref()).await?,
        mode: declared.mode,
    })
}

/// An account's number. `getent` knows all the places that accounts come from.
async fn id<K: FromFault>(
    runner: &dyn Runner,
    cx: &Context,
    database: &str,
    kind: &str,
    account: Option<&Account>,
) -> Result<Option<u32>, Error<K>> {
    let name = match account {
        None => return Ok(None),
        Some(Account::Id(id)) => return Ok(Some(*id)),
        Some(Account::Name(name)) => name,
    };
    let what = format!("can't look up the {kind} {name}");
    let command = Command::new("getent")
        .args([database, name])
        .time_limit(Duration::from_secs(30))
        .install_hint("install getent (libc-bin), or declare the number");
    let failed = |error: reseed_core::exec::ExecError| error.into_error(&*what, Effect::None);
    let output = runner.run(&command, &cx.cancel).await.map_err(failed)?;
    if output.exit.code() == Some(2) {
        let what = format!("there is no {kind} {name} on this machine");
        return Err(Error::new(K::from_common(Common::NotFound), what)
            .hint("make it, or declare a number that it is to have"));
    }
    let output = output.require_success().map_err(failed)?;
    match number(&output.stdout.text(), name) {
        Some(id) => Ok(Some(id)),
        None => Err(Error::new(K::from_common(Common::BadOutput), what).said(output.stdout.text())),
    }
}

/// `postgres:x:26:26:…`, and likewise of a group.
fn number(answer: &str, name: &str) -> Option<u32> {
    let mut fields = answer.lines().next()?.split(':');
    (fields.next()? == name).then_some(())?;
    fields.nth(1)?.parse().ok()
}

/// The topmost directory of a dataset; none where it isn't mounted, or only with something over it.
fn open(dataset: &str, access: OFlags) -> io::Result<Option<OwnedFd>> {
    let all = mounts::now()?;
    let Some(mount) = (all.iter().rev()).find(|mount| mount.is_dataset(dataset)) else {
        return Ok(None);
    };
    let flags = access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(CWD, &mount.point, flags, Mode::empty())?;
    let is_it = rustix::fs::fstat(&dir)?.st_dev == mount.device;
    Ok(is_it.then_some(dir))
}

fn facts(dir: &OwnedFd) -> io::Result<DirFacts> {
    let found = rustix::fs::fstat(dir)?;
    Ok(DirFacts {
        uid: found.st_uid,
        gid: found.st_gid,
        mode: DirMode::of_bits(found.st_mode),
    })
}

/// What the topmost directory of a mounted dataset has.
pub(crate) fn look(dataset: &str) -> io::Result<Option<DirFacts>> {
    // Who may not read it may see whose it is.
    open(dataset, OFlags::PATH)?.map(|dir| facts(&dir)).transpose()
}

/// Gives the topmost directory of a mounted dataset what is wanted. False where it isn't mounted.
pub(crate) fn set(dataset: &str, wanted: &DirWanted) -> io::Result<bool> {
    let Some(dir) = open(dataset, OFlags::RDONLY)? else {
        return Ok(false);
    };
    change(&dir, wanted)?;
    Ok(true)
}

fn change(dir: &OwnedFd, wanted: &DirWanted) -> io::Result<()> {
    let has = facts(dir)?;
    let uid = wanted.uid.filter(|uid| *uid != has.uid);
    let gid = wanted.gid.filter(|gid| *gid != has.gid);
    if uid.is_some() || gid.is_some() {
        rustix::fs::fchown(dir, uid.map(Uid::from_raw), gid.map(Gid::from_raw))?;
    }
    let mode = wanted.mode.unwrap_or(has.mode);
    if facts(dir)?.mode != mode {
        rustix::fs::fchmod(dir, Mode::from_raw_mode(mode.bits()))?;
    }
    Ok(())
}

/// Sets what is declared of a dataset that was just put in its place. What can't be had is told: it must not keep the data away.
pub(crate) async fn declared(
    runner: &dyn Runner,
    cx: &Context,
    dataset: &DatasetName,
    declared: Option<&Ownership>,
) {
    let Some(declared) = declared else { return };
    let what = format!("the owner or mode that is declared of {dataset} can't be had");
    let wanted = match resolve::<StoreKind>(runner, cx, declared).await {
        Ok(wanted) => wanted,
        Err(error) => return fresh::warn(cx, format!("{what}: {error}")),
    };
    let name = dataset.to_string();
    let done = work::blocking("can't set an owner", move || {
        set(&name, &wanted).map_err(|error| StoreError::io("can't change its topmost directory", &error))
    });
    match done.await {
        Ok(true) => {}
        Ok(false) => fresh::warn(cx, format!("{what}: it isn't mounted")),
        Err(error) => fresh::warn(cx, format!("{what}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accounts_number_is_read_and_no_other_accounts() {
        assert_eq!(number("postgres:x:26:27:a:/b:/c\n", "postgres"), Some(26));
        assert_eq!(number("media:x:100:\n", "media"), Some(100));
        for (answer, name) in [
            ("", "a"),
            ("b:x:1:1\n", "a"),
            ("a:x\n", "a"),
            ("a:x:-1:1\n", "a"),
            ("a:x::\n", "a"),
        ] {
            assert_eq!(number(answer, name), None, "{answer:?}");
        }
    }

    #[test]
    fn only_what_is_wanted_changes() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o2750)).unwrap();
        let open = OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        let has = facts(&open).unwrap();
        assert_eq!(has.mode, DirMode::of_bits(0o2750));
        // Its own owner again: nothing is to be done, and nothing is refused to anybody.
        let same = DirWanted {
            uid: Some(has.uid),
            gid: Some(has.gid),
            mode: None,
        };
        assert!(same.is_had_by(&has));
        change(&open, &same).unwrap();
        assert_eq!(facts(&open).unwrap(), has);
        let mode = DirWanted {
            mode: Some(DirMode::of_bits(0o700)),
            ..same
        };
        assert!(!mode.is_had_by(&has));
        change(&open, &mode).unwrap();
        assert_eq!(
            facts(&open).unwrap(),
            DirFacts {
                mode: DirMode::of_bits(0o700),
                ..has
            }
        );
        assert_eq!(look("tank/nowhere").unwrap(), None);
        assert!(!set("tank/nowhere", &mode).unwrap());
    }
}
