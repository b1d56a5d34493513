//! Key files, and a repository's own key, kept while an engine lives.
//!
//! Deriving the key that protects it from the password takes a third of a second and 32 MiB, on purpose: whoever guesses
//! passwords is to pay that each time. Whoever has the right one pays once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use rustic_core::repofile::{KeyFile, MasterKey};
use rustic_core::{FileType, Id};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::cipher::{Cipher, digest, hex};
use crate::error::{EngineError, Result};
use crate::secret::{Password, plain};
use crate::store::{Store, layout};
use crate::threads;

/// Bytes that deriving a key may take. restic's keys ask for 32 MiB in each of four lanes, those of `rustic` for 128 MiB in one.
const MOST_FOR_A_KEY: u64 = 1 << 30;

/// What opened a repository, for whoever has the same password and finds the same key files.
///
/// It serialises to the plain key, because the restore worker gets it over a private pipe; it must not be serialised anywhere else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownKey {
    /// The key files that there were: whose key was taken away or given anew derives again.
    files: BTreeSet<Id>,
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
        let key = self.get(password).filter(|key| key.files == set_of(files))?;
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
        let (files, master) = (set_of(files), Zeroizing::new(master));
        self.set(password, KnownKey { files, master });
        Ok(())
    }
}

fn set_of(files: &[Id]) -> BTreeSet<Id> {
    files.iter().copied().collect()
}

/// Writes a key file as restic does: as much work for a guesser as the library's, in 32 MiB instead of 128.
/// Answers its path.
pub(crate) fn write(
    store: &Store,
    host: &str,
    now: Timestamp,
    password: &Password,
    master: &MasterKey,
) -> Result<object_store::path::Path> {
    let invalid = |detail: String| EngineError::Invalid { detail };
    let mut salt = vec![0_u8; 64];
    rustix::rand::getrandom(&mut salt[..], rustix::rand::GetRandomFlags::empty())
        .ok()
        .filter(|filled| *filled == 64)
        .ok_or_else(|| invalid("the kernel gave no random numbers".into()))?;
    let mut file = KeyFile {
        hostname: Some(host.to_owned()),
        username: None,
        created: Some(now.to_zoned(jiff::tz::TimeZone::UTC)),
        kdf: "scrypt".into(),
        n: 1 << 15,
        r: 8,
        p: 4,
        data: Vec::new(),
        salt,
    };
    let derived = file
        .kdf_key(&password.expose())
        .map_err(|error| invalid(crate::words::of(&error)))?;
    let cipher = Cipher::from_parts(derived.to_keys())?;
    let plain = Zeroizing::new(serde_json::to_vec(master).map_err(|error| invalid(error.to_string()))?);
    file.data = cipher.seal(&plain)?;
    let json = serde_json::to_vec(&file).map_err(|error| invalid(error.to_string()))?;
    let id: Id = hex(&digest(&json))
        .parse()
        .map_err(|_| invalid("bad key id".into()))?;
    let path = layout::path_of(store.prefix(), FileType::Key, &id);
    let content = [bytes::Bytes::from(json)];
    store.write(&path, content.to_vec())?;
    if !store.is_local() && !store.creates(&path, &content)? {
        tracing::warn!(
            location = store.location(),
            "this store overwrites what it was asked only to create: let no two machines create a repository at once"
        );
    }
    Ok(path)
}

/// The master key, out of the first key file that the password fits.
pub(crate) fn unlock(store: &Store, files: &[Id], password: &Password) -> Result<Option<MasterKey>> {
    let mut first = None;
    for (id, mut file) in sound(store, files)? {
        let unreadable = |detail: String| EngineError::Unreadable {
            what: format!("key {}", id.to_hex().as_str()),
            detail,
        };
        let derived = match file.kdf_key(&password.expose()) {
            Ok(derived) => derived,
            Err(error) => {
                first.get_or_insert_with(|| unreadable(crate::words::of(&error)));
                continue;
            }
        };
        let cipher = Cipher::from_parts(derived.to_keys())?;
        if let Some(plain) = cipher.open(&mut file.data) {
            let master = serde_json::from_slice(plain);
            plain.zeroize();
            return master
                .map(Some)
                .map_err(|error| unreadable(format!("column {}", error.column())));
        }
    }
    first.map_or(Ok(None), Err)
}

/// The key files that are such, and where there is none, why. One that is damaged takes no other with it.
pub(crate) fn sound(store: &Store, files: &[Id]) -> Result<Vec<(Id, KeyFile)>> {
    let (mut sound, mut first) = (Vec::new(), None);
    for id in files {
        match key_file(store, id) {
            Ok(file) => sound.push((*id, file)),
            Err(error @ EngineError::Unreadable { .. }) => drop(first.get_or_insert(error)),
            Err(error) => return Err(error),
        }
    }
    match first {
        Some(error) if sound.is_empty() => Err(error),
        _ => Ok(sound),
    }
}

fn key_file(store: &Store, id: &Id) -> Result<KeyFile> {
    let bytes = store.read_file(FileType::Key, id)?;
    serde_json::from_slice::<KeyFile>(&bytes)
        .ok()
        .filter(|key| key.kdf == "scrypt" && key.n.is_power_of_two() && key.n > 1)
        // What it asks for is in nobody's control.
        .filter(|key| memory_for(key, threads::available()) <= MOST_FOR_A_KEY && key.p <= 64)
        .ok_or_else(|| EngineError::Unreadable {
            what: format!("key {}", id.to_hex().as_str()),
            detail: "it is damaged or of an unknown kind".into(),
        })
}

/// Bytes that deriving a key takes: 128·N·r for each of the p lanes that are derived at the same time.
fn memory_for(key: &KeyFile, threads: usize) -> u64 {
    let lanes = u64::from(key.p).min(u64::try_from(threads).unwrap_or(u64::MAX));
    [u64::from(key.n), u64::from(key.r), lanes]
        .into_iter()
        .fold(128, u64::saturating_mul)
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
