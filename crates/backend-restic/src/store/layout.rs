//! Where each kind of file lives in a repository of restic's default layout. Pure.

use object_store::path::Path;
use rustic_core::{FileType, Id};

/// Directory of the lock files, which `rustic_core` does not know about.
pub(crate) const LOCKS: &str = "locks";

/// Path of one repository file below `prefix`.
pub(crate) fn path_of(prefix: &Path, kind: FileType, id: &Id) -> Path {
    let hex = id.to_hex();
    match kind {
        FileType::Config => prefix.clone().join("config"),
        // restic spreads packs over 256 directories by the first byte of their id.
        FileType::Pack => prefix.clone().join("data").join(&hex[..2]).join(&*hex),
        other => prefix.clone().join(other.dirname()).join(&*hex),
    }
}

/// Path of a lock file below `prefix`.
pub(crate) fn lock_path(prefix: &Path, hex_id: &str) -> Path {
    prefix.clone().join(LOCKS).join(hex_id)
}

/// The id that a listed path stands for; `None` for anything that is not a repository file, such as leftovers.
pub(crate) fn id_of(path: &Path) -> Option<Id> {
    let name = path.filename()?;
    (name.len() == 64
        && name
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
    .then(|| name.parse().ok())
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0aceabcdef0123456789abcdef0123456789abcdef0123456789abcdef012345";

    #[test]
    fn packs_are_spread_by_their_first_byte() {
        let id = HEX.parse().unwrap();
        let root = Path::from("some/where");
        assert_eq!(
            path_of(&root, FileType::Pack, &id).as_ref(),
            format!("some/where/data/0a/{HEX}")
        );
        assert_eq!(
            path_of(&root, FileType::Index, &id).as_ref(),
            format!("some/where/index/{HEX}")
        );
        assert_eq!(
            path_of(&root, FileType::Config, &id).as_ref(),
            "some/where/config"
        );
    }

    #[test]
    fn only_lower_case_hex_of_full_length_is_an_id() {
        assert!(id_of(&Path::from(format!("data/0a/{HEX}"))).is_some());
        for other in [
            "README",
            &HEX[1..],
            &HEX.to_uppercase(),
            &format!("{}g", &HEX[1..]),
        ] {
            assert!(id_of(&Path::from(format!("data/{other}"))).is_none(), "{other}");
        }
    }
}
