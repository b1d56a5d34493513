//! Which restic it is, and what that means. Pure.
//!
//! | what | since | why it matters |
//! |---|---|---|
//! | progress and result of `backup` as JSON, `restore --verify` | 0.14 or earlier | the least version: Debian 12 has it |
//! | the whole id in a backup's result; `restore --sparse` | 0.15 | before, eight characters; files come back without holes |
//! | `restore` of `snapshot:folder`; its progress and result as JSON | 0.16 | before, what is below a folder comes back below it and has to be lifted |
//! | `restore --delete`, and only what differs is written | 0.17 | before, an interrupted restore begins again |
//! | `RESTIC_FEATURES=device-id-for-hardlinks` | 0.17, 0.18 | each snapshot of ZFS is another device: without it all directories look changed, and are stored again. Not set where it isn't known: a switch that is gone could be an error |
//! | exit codes 10 (no repository), 11 (locked), 12 (wrong password) | 0.17 | before, all is 1, and its words are all there is |
//! | errors and the result of `check` as JSON | 0.18 | before, its words |
//!
//! A newer one than is known here is taken for one that can all of that, and is warned of.

use std::fmt;

use crate::error::{EngineError, Result};

/// A version of restic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

/// The least that does.
const LEAST: Version = Version::new(0, 14);
/// The first that nobody has tried with this.
const UNKNOWN: Version = Version::new(0, 19);

impl Version {
    const fn new(major: u32, minor: u32) -> Self {
        Self {
            major,
            minor,
            patch: 0,
        }
    }

    /// From what `restic version` prints: `restic 0.14.0 compiled with go1.19.8 on linux/amd64`.
    ///
    /// # Errors
    /// `BadOutput` for anything else; `ToolMissing` for one that is too old.
    pub(crate) fn of_output(text: &str) -> Result<Self> {
        let version = text
            .lines()
            .filter_map(|line| line.strip_prefix("restic "))
            .find_map(|rest| Self::parse(rest.split([' ', '-']).next()?))
            .ok_or_else(|| EngineError::BadOutput {
                detail: format!("`restic version` says {:?}", crate::words::plain(text)),
            })?;
        if version < LEAST {
            return Err(EngineError::ToolMissing {
                detail: format!("restic {version} is too old: {LEAST} is the least"),
            });
        }
        Ok(version)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(|part| part.parse().ok());
        Some(Self {
            major: numbers.next()??,
            minor: numbers.next()??,
            patch: numbers.next().unwrap_or(Some(0))?,
        })
    }

    fn since(self, minor: u32) -> bool {
        self >= Self::new(0, minor)
    }

    /// Nobody has tried this one with this program.
    pub(crate) fn is_unknown(self) -> bool {
        self >= UNKNOWN
    }

    pub(crate) fn sparse(self) -> bool {
        self.since(15)
    }

    pub(crate) fn subfolder(self) -> bool {
        self.since(16)
    }

    /// Continues an interrupted restore.
    pub(crate) fn resumes(self) -> bool {
        self.since(17)
    }

    pub(crate) fn restore_json(self) -> bool {
        self.since(16)
    }

    pub(crate) fn check_json(self) -> bool {
        self.since(18)
    }

    pub(crate) fn device_feature(self) -> bool {
        self.since(17) && !self.is_unknown()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Version {
        Version::of_output(&format!("restic {text} compiled with go1.19.8 on linux/amd64\n")).unwrap()
    }

    #[test]
    fn versions_are_read_and_compared_by_number() {
        assert_eq!(of("0.14.0").to_string(), "0.14.0");
        assert_eq!(of("0.18.1-dev").to_string(), "0.18.1");
        assert!(of("0.100.0") > of("0.18.0"));
        let debian12 = of("0.14.0");
        assert!(!debian12.sparse() && !debian12.subfolder() && !debian12.resumes() && !debian12.check_json());
        let debian13 = of("0.18.0");
        assert!(
            debian13.sparse() && debian13.resumes() && debian13.check_json() && debian13.device_feature()
        );
        assert!(!debian13.is_unknown());
        let newer = of("1.0");
        assert!(newer.is_unknown() && newer.resumes() && !newer.device_feature());
    }

    #[test]
    fn what_is_too_old_or_no_restic_is_refused() {
        for old in ["restic 0.13.1 compiled with", "restic 0.9.6 (v0.9.6)"] {
            let error = Version::of_output(old).unwrap_err();
            assert!(matches!(error, EngineError::ToolMissing { .. }), "{error}");
        }
        for bad in [
            "",
            "restic",
            "restic x.y.z",
            "restic 0",
            "borg 1.2.3",
            "restic 0.14.x compiled",
        ] {
            let error = Version::of_output(bad).unwrap_err();
            assert!(matches!(error, EngineError::BadOutput { .. }), "{bad}: {error}");
        }
    }
}
