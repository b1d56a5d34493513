//! Which names from a repository may be used on a file system. Pure.
//!
//! Whoever can write to the repository chooses these names. One that is not exactly one component of a path would
//! lead out of the target.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

/// The longest name that Linux file systems take.
const MAX: usize = 255;

/// Says what is wrong with a name, if anything is.
pub(crate) fn problem(name: &OsStr) -> Option<&'static str> {
    let bytes = name.as_bytes();
    match bytes {
        b"" => Some("it is empty"),
        b"." | b".." => Some("it is not a name but a direction"),
        _ if bytes.contains(&b'/') => Some("it holds a slash"),
        _ if bytes.contains(&0) => Some("it holds a NUL"),
        _ if bytes.len() > MAX => Some("it is too long"),
        _ => None,
    }
}

/// The components of a path that was asked for, when it is a plain relative path.
pub(crate) fn components(path: &Path) -> Option<Vec<&OsStr>> {
    path.components()
        .filter(|part| !matches!(part, Component::CurDir))
        .map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn directions_and_paths_are_no_names() {
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "/",
            "/etc",
            "a\0b",
            &"x".repeat(256),
        ] {
            assert!(problem(OsStr::new(bad)).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn odd_names_are_names() {
        for good in [
            "-rf",
            "a\nb",
            "'\"`",
            "...",
            " ",
            "ü",
            ".hidden",
            "~",
            "*",
            "\\",
            &"x".repeat(255),
        ] {
            assert_eq!(problem(OsStr::new(good)), None, "{good:?}");
        }
        assert_eq!(problem(OsStr::from_bytes(b"\xff\xfe")), None);
    }

    proptest! {
        #[test]
        fn an_accepted_name_stays_in_its_directory(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            let name = OsStr::from_bytes(&bytes);
            if problem(name).is_none() {
                let path = Path::new("/target").join(name);
                prop_assert_eq!(path.parent(), Some(Path::new("/target")));
                prop_assert_eq!(path.file_name(), Some(name));
            }
        }
    }

    #[test]
    fn a_path_that_climbs_has_no_components() {
        assert_eq!(components(Path::new("a/./b")).unwrap(), ["a", "b"]);
        assert!(components(Path::new("a/../b")).is_none());
        assert!(components(Path::new("/a")).is_none());
    }
}
