//! A repository's own key, kept while an engine lives: deriving the one that protects it from the password takes a third of a
//! second and 32 MiB, on purpose, and whoever guesses passwords is to pay that each time. Whoever has the right one pays once.

use std::sync::{Arc, Mutex, PoisonError};

use rustic_core::Id;
use rustic_core::repofile::MasterKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{EngineError, Result};
use crate::secret::{Password, plain};

/// What opened a repository, for whoever has the same password and finds the same key files.
///
/// It serialises to the plain key, because the restore worker gets it over a private pipe; it must not be serialised anywhere else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownKey {
    /// The key files that there were: whose key was taken away or given anew derives again.
    files: Vec<String>,
    /// As restic writes it into a key file.
    #[serde(with = "plain")]
    master: Zeroizing<String>,
}

impl std::fmt::Debug for KnownKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl KnownKey {
    /// What must not appear in the words of whoever gets it: each part of the key.
    pub(crate) fn secrets(&self) -> Vec<Zeroizing<String>> {
        let parts = self.master.split('"').filter(|part| part.len() >= 16);
        parts.map(|part| Zeroizing::new(part.to_owned())).collect()
    }
}

/// What an engine knows, by the password that it was given last. Its clones share it.
#[derive(Clone, Default)]
pub(crate) struct Known(Arc<Mutex<Option<(Password, KnownKey)>>>);

impl Known {
    /// For somebody with this password.
    pub(crate) fn get(&self, password: &Password) -> Option<KnownKey> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known
            .as_ref()
            .filter(|(theirs, _)| theirs.expose() == password.expose());
        known.map(|(_, key)| key.clone())
    }

    /// The master key, for somebody with this password who finds these key files.
    pub(crate) fn opens(&self, password: &Password, files: &[Id]) -> Option<MasterKey> {
        let key = self.get(password).filter(|key| key.files == names(files))?;
        serde_json::from_str(&key.master).ok()
    }

    pub(crate) fn set(&self, password: &Password, key: KnownKey) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((password.clone(), key));
    }

    /// Remembers what opened the repository.
    pub(crate) fn learn(&self, password: &Password, files: &[Id], master: &MasterKey) -> Result<()> {
        let master = serde_json::to_string(master).map_err(|error| EngineError::Invalid {
            detail: error.to_string(),
        })?;
        let (files, master) = (names(files), Zeroizing::new(master));
        self.set(password, KnownKey { files, master });
        Ok(())
    }
}

fn names(files: &[Id]) -> Vec<String> {
    let mut names: Vec<String> = files.iter().map(|id| id.to_hex().to_string()).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_password_and_the_same_files_open_it() {
        let ids = |texts: [&str; 2]| texts.map(|text| text.repeat(32).parse::<Id>().unwrap());
        let (files, again, others) = (ids(["0a", "0b"]), ids(["0b", "0a"]), ids(["0a", "0c"]));
        let (known, right) = (Known::default(), Password::new("right"));
        assert!(known.opens(&right, &files).is_none());
        let master = MasterKey::new();
        known.learn(&right, &files, &master).unwrap();
        let found = known.opens(&right, &again).unwrap();
        assert_eq!(found.encrypt, master.encrypt);
        assert!(known.opens(&Password::new("wrong"), &files).is_none());
        assert!(known.opens(&right, &others).is_none());
        assert!(known.opens(&right, &files[..1]).is_none());
        let key = known.get(&right).unwrap();
        assert_eq!(format!("{key:?}"), "***");
        assert_eq!(key.secrets().len(), 3);
    }
}
