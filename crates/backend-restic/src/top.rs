//! The metadata of a tree's topmost directory as a tag of its snapshot, and back.
//!
//! `restic backup .` records what is in a directory, and nothing of the directory itself: its owner, permissions, times and
//! attributes would be lost (a `/var/lib/postgresql` that anybody may read, which PostgreSQL refuses). So the driver of the
//! program keeps them in a tag, and both engines apply them when they restore. The same tag says where in the snapshot the
//! tree is, which its paths alone leave open.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::Deserialize;

use crate::backup::attributes_of;
use crate::restore::plan::Meta;

const TOP: &str = "reseed-top=";
/// A longer tag is none: it is an argument of a program.
const MOST: usize = 16 * 1024;

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Top {
    /// The name of the only directory of the snapshot, where the tree is that; none where it is all of the snapshot.
    pub(crate) name: Option<String>,
    pub(crate) meta: Meta,
}

/// An attribute as the reader of attributes hands it out.
#[derive(Debug, Deserialize)]
struct Attribute {
    name: String,
    value: String,
}

impl Top {
    /// What a directory is like.
    pub(crate) fn read(directory: &Path, name: Option<String>) -> io::Result<Self> {
        let stat = std::fs::symlink_metadata(directory)?;
        let listed: Vec<Attribute> = attributes_of(directory)?;
        let mut attributes = Vec::with_capacity(listed.len());
        for Attribute { name, value } in listed {
            let value = base64::engine::general_purpose::STANDARD
                .decode(value)
                .map_err(io::Error::other)?;
            attributes.push((name, value));
        }
        Ok(Self {
            name,
            meta: Meta {
                mode: Some(stat.mode() & 0o7777),
                uid: Some(stat.uid()),
                gid: Some(stat.gid()),
                modified: Some((stat.mtime(), i32::try_from(stat.mtime_nsec()).unwrap_or(0))),
                accessed: None,
                attributes,
            },
        })
    }

    /// The tag; none when there is too much to keep.
    pub(crate) fn to_tag(&self) -> Option<String> {
        let meta = &self.meta;
        let (seconds, nanoseconds) = meta.modified?;
        let mut tag = format!(
            "{TOP}{};{:o};{};{};{seconds}.{nanoseconds:09}",
            self.name.as_deref().unwrap_or("."),
            meta.mode?,
            meta.uid?,
            meta.gid?
        );
        for (name, value) in &meta.attributes {
            tag.push_str(&format!(";{}:{}", BASE64.encode(name), BASE64.encode(value)));
        }
        (tag.len() <= MOST && !tag.contains(',')).then_some(tag)
    }

    /// From a snapshot's tags.
    pub(crate) fn of_tags(tags: &[String]) -> Option<Self> {
        tags.iter()
            .find_map(|tag| tag.strip_prefix(TOP))
            .and_then(Self::parse)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';');
        let name = parts.next()?;
        let name = match name {
            "." => None,
            _ if crate::restore::names::problem(name.as_ref()).is_some() => return None,
            _ => Some(name.to_owned()),
        };
        let mode = u32::from_str_radix(parts.next()?, 8).ok()?;
        let (uid, gid) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let (seconds, nanoseconds) = parts.next()?.split_once('.')?;
        let modified = (seconds.parse().ok()?, nanoseconds.parse().ok()?);
        if mode > 0o7777 || !(0..1_000_000_000).contains(&modified.1) {
            return None;
        }
        let attributes = parts
            .map(|part| {
                let (name, value) = part.split_once(':')?;
                let name = String::from_utf8(BASE64.decode(name).ok()?).ok()?;
                Some((name, BASE64.decode(value).ok()?))
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Self {
            name,
            meta: Meta {
                mode: Some(mode),
                uid: Some(uid),
                gid: Some(gid),
                modified: Some(modified),
                accessed: None,
                attributes,
            },
        })
    }

    /// Where in the snapshot the tree is.
    pub(crate) fn place(&self) -> PathBuf {
        self.name.as_deref().map(PathBuf::from).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_kept_comes_back(
            name in proptest::option::of("[a-z+%0-9]{1,20}"), mode in 0_u32..=0o7777, uid: u32, gid: u32, seconds: i64,
            nanoseconds in 0..1_000_000_000_i32,
            attributes in proptest::collection::vec((".{1,12}", proptest::collection::vec(any::<u8>(), 0..40)), 0..4),
        ) {
            let top = Top { name, meta: Meta {
                mode: Some(mode), uid: Some(uid), gid: Some(gid), modified: Some((seconds, nanoseconds)), accessed: None, attributes,
            } };
            let tag = top.to_tag().unwrap();
            prop_assert!(!tag.contains(',') && tag.is_ascii());
            prop_assert_eq!(Top::of_tags(&["reseed".to_owned(), tag.clone()]), Some(top));
            // What was cut off is nothing, or what is before the cut, and never a panic.
            for end in TOP.len()..tag.len() {
                let _ = Top::of_tags(&[tag[..end].to_owned()]);
            }
        }
    }

    #[test]
    fn a_directory_is_read_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o2751)).unwrap();
        let top = Top::read(dir.path(), None).unwrap();
        assert_eq!((top.meta.mode, top.place()), (Some(0o2751), PathBuf::new()));
        assert!(Top::read(&dir.path().join("missing"), None).is_err());
    }

    #[test]
    fn too_much_and_nonsense_are_no_tag() {
        let mut top = Top::read(Path::new("/"), None).unwrap();
        top.meta.attributes = vec![("user.big".to_owned(), vec![7; 64 << 10])];
        assert_eq!(top.to_tag(), None);
        for bad in [
            "",
            ".",
            ".;750;0;0",
            "..;750;0;0;1.0",
            "a/b;750;0;0;1.0",
            ".;999;0;0;1.0",
            ".;77777;0;0;1.0",
            ".;750;0;0;1.0;x",
        ] {
            assert_eq!(Top::of_tags(&[format!("{TOP}{bad}")]), None, "{bad}");
        }
    }
}
