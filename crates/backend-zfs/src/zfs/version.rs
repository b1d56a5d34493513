//! The least versions of OpenZFS, and why.
//!
//! 2.1 is the least: it is what Debian 12 carries, `zfs rename -u` (don't mount anew) came with 2.0, and so did
//! `zfs version` meaning both the tool and the module. 2.3 has JSON (`-j`), which is not used: `-Hp` says the same on all
//! of them, and `--json-int` clamps guids above 2^63. Userland and kernel module may differ after an upgrade without a
//! reboot; the lower one decides.

use std::fmt;

/// The least version that reseed works with.
pub const LEAST: Version = Version {
    major: 2,
    minor: 1,
    patch: 0,
};

/// The first with the permission `receive:append` (2.3.1 and 2.2.8 don't have it).
pub(crate) const APPENDS: Version = Version {
    major: 2,
    minor: 3,
    patch: 2,
};

/// A version of OpenZFS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 2 in 2.3.1.
    pub major: u32,
    /// 3 in 2.3.1.
    pub minor: u32,
    /// 1 in 2.3.1.
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Installed {
    /// The tools.
    pub tool: Version,
    /// The kernel module; none when it isn't loaded.
    pub module: Option<Version>,
}

impl Installed {
    /// The lower of the two.
    pub fn effective(self) -> Version {
        self.module.map_or(self.tool, |module| module.min(self.tool))
    }
}

/// Reads `zfs version`: `zfs-2.3.2-2~bpo12+2` and `zfs-kmod-2.3.2-2~bpo12+2`.
pub(crate) fn parse(text: &str) -> Option<Installed> {
    let mut tool = None;
    let mut module = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("zfs-kmod-") {
            module = number(rest);
        } else if let Some(rest) = line.strip_prefix("zfs-") {
            tool = number(rest);
        }
    }
    tool.map(|tool| Installed { tool, module })
}

fn number(text: &str) -> Option<Version> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let mut parts = text[..end].split('.');
    let mut next = || parts.next().map(|part| part.parse().ok());
    Some(Version {
        major: next()??,
        minor: next()??,
        patch: next().flatten().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_distributions_write_them() {
        let both = parse("zfs-2.3.2-2~bpo12+2\nzfs-kmod-2.1.11-1+deb12u1\n").unwrap();
        assert_eq!(both.tool.to_string(), "2.3.2");
        assert_eq!(both.effective().to_string(), "2.1.11");
        assert!(both.effective() >= LEAST);
        assert_eq!(parse("zfs-2.4.0-rc1\n").unwrap().effective().to_string(), "2.4.0");
        assert_eq!(parse("zfs-v2.2.99-1_gabc\n").unwrap().tool.to_string(), "2.2.99");
        assert!(parse("zfs-0.8.6\n").unwrap().tool < LEAST);
        for bad in ["", "zfs-\n", "zfs-x.y\n", "zfs-99999999999.1\n", "usage: zfs\n"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
