//! The arguments of each call. Pure: what is asked for, and of which version, in; an argument vector out.
//!
//! No secret is ever among them, and nothing that somebody else named can be taken for an option: it stands behind `=`, or
//! begins with a slash, a dot or a digit of an id.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use jiff::Timestamp;
use reseed_core::offsite::CheckDepth;

use super::version::Version;
use crate::error::{EngineError, Result};

/// restic knows at most so many parts of the data.
const PARTS: u32 = 256;

/// What every call has, with the options of where the repository is.
pub(crate) fn common(cache: Option<&Path>, options: Vec<OsString>) -> Vec<OsString> {
    // Without either, a restic that finds no home directory fails (0.19).
    let mut args = match cache {
        None => vec!["--no-cache".into()],
        Some(dir) => vec![equals("--cache-dir=", dir.as_os_str())],
    };
    args.extend(options);
    args
}

fn equals(option: &str, value: &OsStr) -> OsString {
    let mut text = OsString::from(option);
    text.push(value);
    text
}

pub(crate) fn version() -> Vec<OsString> {
    words(&["version"])
}

pub(crate) fn init() -> Vec<OsString> {
    words(&["init"])
}

pub(crate) fn unlock() -> Vec<OsString> {
    // Never with --remove-all: that takes the locks of those who are alive.
    words(&["unlock"])
}

pub(crate) fn locks() -> Vec<OsString> {
    words(&["--no-lock", "list", "locks"])
}

pub(crate) fn lock(id: &str) -> Vec<OsString> {
    words(&["--no-lock", "cat", "lock", id])
}

pub(crate) fn config() -> Vec<OsString> {
    words(&["--no-lock", "cat", "config"])
}

pub(crate) fn snapshots() -> Vec<OsString> {
    words(&["--no-lock", "--json", "snapshots"])
}

/// The ids alone, whether the snapshots can be read or not.
pub(crate) fn snapshot_ids() -> Vec<OsString> {
    words(&["--no-lock", "list", "snapshots"])
}

/// The ids of its index files.
pub(crate) fn index_ids() -> Vec<OsString> {
    words(&["--no-lock", "list", "index"])
}

pub(crate) fn packs() -> Vec<OsString> {
    words(&["--no-lock", "list", "packs"])
}

/// An index file.
pub(crate) fn index(id: &str) -> Vec<OsString> {
    words(&["--no-lock", "cat", "index", id])
}

/// How much all snapshots need, as it is stored.
pub(crate) fn stats() -> Vec<OsString> {
    words(&["--no-lock", "--json", "stats", "--mode=raw-data"])
}

/// One directory of a snapshot.
pub(crate) fn tree(id: &str) -> Vec<OsString> {
    words(&["--no-lock", "cat", "blob", id])
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(Into::into).collect()
}

/// What a backup records besides what it reads.
#[derive(Debug)]
pub(crate) struct Recorded<'a> {
    pub(crate) host: &'a str,
    pub(crate) tags: &'a [String],
    pub(crate) time: Timestamp,
}

/// Backs up `what`, relative to where it runs. Times are in UTC: the child is given that zone.
pub(crate) fn backup(recorded: &Recorded<'_>, exclude: Option<&Path>, what: &OsStr) -> Result<Vec<OsString>> {
    let mut args = words(&["--json", "backup"]);
    args.push(equals("--host=", recorded.host.as_ref()));
    args.push(equals(
        "--time=",
        recorded.time.strftime("%Y-%m-%d %H:%M:%S").to_string().as_ref(),
    ));
    for tag in recorded.tags {
        if tag.is_empty() || tag.contains(',') {
            return Err(EngineError::Invalid {
                detail: format!("{tag:?} cannot be a tag: restic takes a comma for a separator"),
            });
        }
        args.push(equals("--tag=", tag.as_ref()));
    }
    if let Some(path) = exclude {
        args.push(equals("--exclude=", &literal(path)));
    }
    args.push(what.to_owned());
    Ok(args)
}

/// What to restore, and where to.
#[derive(Debug)]
pub(crate) struct Restoring<'a> {
    pub(crate) snapshot: &'a str,
    /// Where in the snapshot the tree is.
    pub(crate) place: &'a Path,
    /// Only this, relative to the tree.
    pub(crate) only: Option<&'a Path>,
    pub(crate) target: &'a Path,
    /// ZFS's own `.zfs` stands in the target, which nobody can remove.
    pub(crate) door: bool,
    pub(crate) no_lock: bool,
}

/// Whether what is restored lies deeper in the target than it should, because this version has no folders of snapshots.
pub(crate) fn lies_deeper(version: Version, place: &Path) -> bool {
    !place.as_os_str().is_empty() && !version.subfolder()
}

pub(crate) fn restore(version: Version, restoring: &Restoring<'_>) -> Vec<OsString> {
    let mut args = Vec::new();
    if restoring.no_lock {
        args.push("--no-lock".into());
    }
    args.extend(words(&["--json", "restore", "--verify"]));
    if version.sparse() {
        args.push("--sparse".into());
    }
    if version.resumes() && restoring.only.is_none() {
        args.push("--delete".into());
        // What isn't restored isn't deleted either; and this is the one in the root of what is restored.
        if restoring.door {
            args.push("--exclude=/.zfs".into());
        }
    }
    let folder = Path::new("/").join(restoring.place);
    let only = restoring.only.map(|only| Path::new("/").join(only));
    if lies_deeper(version, restoring.place) {
        let all = restoring
            .only
            .map_or_else(|| folder.clone(), |only| folder.join(only));
        args.push(equals("--include=", &literal(&all)));
    } else if let Some(only) = only {
        args.push(equals("--include=", &literal(&only)));
    }
    args.push(equals("--target=", restoring.target.as_os_str()));
    let mut what = OsString::from(restoring.snapshot);
    if version.subfolder() && folder != Path::new("/") {
        what.push(":");
        what.push(folder);
    }
    args.push(what);
    args
}

/// A path as a pattern that fits that path alone: restic's patterns are those of Go's `filepath.Match`.
fn literal(path: &Path) -> OsString {
    let mut pattern = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if b"*?[\\".contains(byte) {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    OsString::from_vec(pattern)
}

pub(crate) fn check(version: Version, depth: CheckDepth) -> Result<Vec<OsString>> {
    // Without a lock: it would be an exclusive one, and keep backups out for as long as reading everything takes.
    let mut args = words(&["--no-lock"]);
    if version.check_json() {
        args.push("--json".into());
    }
    args.push("check".into());
    match depth {
        CheckDepth::Structure => {}
        CheckDepth::Everything => args.push("--read-data".into()),
        CheckDepth::Part { n, of } => {
            if n == 0 || n > of {
                return Err(EngineError::Invalid {
                    detail: format!("there is no part {n} of {of}"),
                });
            }
            // Larger parts where restic has no smaller ones: more is read than was asked for, and none is left out.
            let (n, of) = if of > PARTS {
                ((n - 1) % PARTS + 1, PARTS)
            } else {
                (n, of)
            };
            args.push(format!("--read-data-subset={n}/{of}").into());
        }
    }
    Ok(args)
}

/// Removes these snapshots and no others.
pub(crate) fn forget(ids: &[&String]) -> Vec<OsString> {
    let mut args = words(&["forget"]);
    args.extend(ids.iter().map(Into::into));
    args
}

/// Removes what no snapshot needs.
pub(crate) fn prune() -> Vec<OsString> {
    words(&["prune"])
}

/// Adds a tag to a snapshot.
pub(crate) fn tag(snapshot: &str, tag: &str) -> Vec<OsString> {
    vec![
        "--json".into(),
        "tag".into(),
        equals("--add=", tag.as_ref()),
        snapshot.into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::of_output(&format!("restic {text} compiled")).unwrap()
    }

    fn joined(args: &[OsString]) -> String {
        args.iter()
            .map(|arg| arg.to_string_lossy())
            .collect::<Vec<_>>()
            .join("|")
    }

    #[test]
    fn a_backup_records_what_it_is_told() {
        let tags = ["reseed".to_owned(), "reseed-point=1".to_owned()];
        let recorded = Recorded {
            host: "-h",
            tags: &tags,
            time: "2026-01-02T03:04:05.9Z".parse().unwrap(),
        };
        let args = backup(&recorded, Some(Path::new("/w/a[1]/.zfs")), ".".as_ref()).unwrap();
        assert_eq!(
            joined(&args),
            "--json|backup|--host=-h|--time=2026-01-02 03:04:05|--tag=reseed|--tag=reseed-point=1|--exclude=/w/a\\[1]/.zfs|."
        );
        let bad = ["a,b".to_owned()];
        let recorded = Recorded {
            tags: &bad,
            ..recorded
        };
        assert!(backup(&recorded, None, ".".as_ref()).is_err());
    }

    #[test]
    fn a_restore_asks_for_what_the_version_has() {
        let restoring = |place: &'static str, only: Option<&'static str>| Restoring {
            snapshot: "ab12",
            place: Path::new(place),
            only: only.map(Path::new),
            target: Path::new("/stage"),
            door: false,
            no_lock: false,
        };
        let args = |text: &str, place, only| joined(&restore(version(text), &restoring(place, only)));
        assert_eq!(
            args("0.14.0", "", None),
            "--json|restore|--verify|--target=/stage|ab12"
        );
        assert_eq!(
            args("0.14.0", "srv/a*", Some("-rf")),
            "--json|restore|--verify|--include=/srv/a\\*/-rf|--target=/stage|ab12"
        );
        assert_eq!(
            args("0.16.0", "srv/a*", Some("-rf")),
            "--json|restore|--verify|--sparse|--include=/-rf|--target=/stage|ab12:/srv/a*"
        );
        assert_eq!(
            args("0.18.0", "", None),
            "--json|restore|--verify|--sparse|--delete|--target=/stage|ab12"
        );
        let door = |only| Restoring {
            door: true,
            ..restoring("srv", only)
        };
        assert_eq!(
            joined(&restore(version("0.18.0"), &door(None))),
            "--json|restore|--verify|--sparse|--delete|--exclude=/.zfs|--target=/stage|ab12:/srv"
        );
        // Where nothing is deleted nothing is in the way, and there can't be both.
        for args in [
            restore(version("0.16.0"), &door(None)),
            restore(version("0.18.0"), &door(Some("x"))),
        ] {
            assert!(!joined(&args).contains("--exclude"));
        }
        assert!(
            lies_deeper(version("0.14.0"), Path::new("srv"))
                && !lies_deeper(version("0.14.0"), Path::new(""))
        );
        assert!(!lies_deeper(version("0.16.0"), Path::new("srv")));
    }

    #[test]
    fn parts_of_the_data_cover_all_of_it() {
        let part = |n, of| check(version("0.14.0"), CheckDepth::Part { n, of }).map(|args| joined(&args));
        assert_eq!(part(2, 7).unwrap(), "--no-lock|check|--read-data-subset=2/7");
        for (n, of) in [(0, 7), (8, 7), (0, 0)] {
            assert!(part(n, of).is_err());
        }
        let all: std::collections::BTreeSet<String> = (1..=1000).map(|n| part(n, 1000).unwrap()).collect();
        assert_eq!(all.len(), 256);
        assert_eq!(
            joined(&check(version("0.18.0"), CheckDepth::Everything).unwrap()),
            "--no-lock|--json|check|--read-data"
        );
    }
}
