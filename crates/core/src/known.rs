//! [`Known`]: the stores and repositories that were there before, so that the empty mount point of a missing disk isn't taken
//! for a new one.
//!
//! Promises nothing about the places themselves. Its file is in the state directory, next to the journal; on a machine that
//! was set up anew it is missing, and then every place is a new one.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{OpError, OpKind};
use crate::names::SourceName;

const FILE: &str = "places.json";

/// What was there before.
#[derive(Debug)]
pub struct Known {
    file: PathBuf,
    places: BTreeMap<SourceName, KnownPlace>,
}

/// One place that was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownPlace {
    /// Where.
    pub location: String,
    /// Its own id.
    pub id: String,
    /// When it was made, or seen for the first time.
    pub since: Timestamp,
}

impl Known {
    /// Reads what is known.
    ///
    /// # Errors
    /// When the file is there and can't be read or understood: not knowing is no permission to make anything.
    pub fn load(state_dir: &Path) -> Result<Self, OpError> {
        let file = state_dir.join(FILE);
        let places = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                OpError::new(OpKind::Corrupt, format!("{} is damaged", file.display()))
                    .said(error)
                    .hint("it lists the stores and repositories that were made; if all of them are there (`reseed status`), remove it")
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(OpError::io(format!("can't read {}", file.display()), &error)),
        };
        Ok(Self { file, places })
    }

    /// Whether a new place may be made here.
    ///
    /// # Errors
    /// `Blocked` when one of this name was at this location before.
    pub fn may_make(&self, name: &SourceName, location: &str) -> Result<(), OpError> {
        match self.places.get(name) {
            Some(known) if known.location == location => Err(OpError::new(
                OpKind::Blocked,
                format!(
                    "{name} was in {location} since {}, and is not there now: its disk is probably not mounted",
                    known.since
                ),
            )
            .hint(format!(
                "mount it (`findmnt` shows what is mounted); if it is lost and you want an empty one, `reseed init --anew {name}`"
            ))),
            _ => Ok(()),
        }
    }

    /// Whether what is there is what was there.
    ///
    /// # Errors
    /// `Blocked` when another one stands there.
    pub fn is_same(&self, name: &SourceName, location: &str, id: &str) -> Result<(), OpError> {
        match self.places.get(name) {
            Some(known) if known.location == location && known.id != id => Err(OpError::new(
                OpKind::Blocked,
                format!(
                    "{name} in {location} is another one (id {id}) than was there since {} (id {})",
                    known.since, known.id
                ),
            )
            .hint(format!(
                "is the right disk mounted? If it was replaced on purpose: `reseed init --anew {name}`"
            ))),
            _ => Ok(()),
        }
    }

    /// Remembers a place.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn remember(
        &mut self,
        name: &SourceName,
        location: &str,
        id: &str,
        now: Timestamp,
    ) -> Result<(), OpError> {
        let same = |known: &KnownPlace| known.location == location && known.id == id;
        if self.places.get(name).is_some_and(same) {
            return Ok(());
        }
        let place = KnownPlace {
            location: location.to_owned(),
            id: id.to_owned(),
            since: now,
        };
        self.places.insert(name.clone(), place);
        self.write()
            .map_err(|error| OpError::io(format!("can't write {}", self.file.display()), &error))
    }

    fn write(&self) -> std::io::Result<()> {
        let new = self.file.with_extension("json.new");
        let mut file = std::fs::File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(&self.places)?)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_place_is_new_only_once() {
        let dir = tempfile::tempdir().unwrap();
        let name = SourceName::new("replica").unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let mut known = Known::load(dir.path()).unwrap();
        known.may_make(&name, "/backup/reseed").unwrap();
        known.remember(&name, "/backup/reseed", "17", now).unwrap();

        let mut known = Known::load(dir.path()).unwrap();
        let error = known.may_make(&name, "/backup/reseed").unwrap_err();
        assert_eq!(error.kind(), OpKind::Blocked, "{error}");
        assert!(error.what_to_do().unwrap().contains("--anew replica"));
        known.is_same(&name, "/backup/reseed", "17").unwrap();
        assert_eq!(
            known.is_same(&name, "/backup/reseed", "18").unwrap_err().kind(),
            OpKind::Blocked
        );
        // Elsewhere by a change of the configuration.
        known.may_make(&name, "/other").unwrap();
        known.remember(&name, "/other", "18", now).unwrap();
        assert!(known.may_make(&name, "/other").is_err());
    }

    #[test]
    fn a_damaged_list_permits_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{\"replica\": {\"loc").unwrap();
        assert_eq!(Known::load(dir.path()).unwrap_err().kind(), OpKind::Corrupt);
    }
}
