//! Writes into a repository what only another program would: from restic's format alone, without the engine's code.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses some of it, all of it is a test"
)]

use std::fs;
use std::path::{Path, PathBuf};

use aes256ctr_poly1305aes::aead::AeadInPlace;
use aes256ctr_poly1305aes::{Aes256CtrPoly1305Aes, Key, Nonce, Tag};
use jiff::Timestamp;
use rustic_core::repofile::KeyFile;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Nobody has this process id: it is above what Linux hands out.
pub const NOBODY: i32 = 0x3fff_ffff;

/// A repository's place and its master key.
pub struct Forge {
    root: PathBuf,
    cipher: Aes256CtrPoly1305Aes,
}

impl Forge {
    pub fn open(root: &Path, password: &str) -> Self {
        let key = fs::read_dir(root.join("keys")).unwrap().next().unwrap().unwrap();
        let file: KeyFile = serde_json::from_slice(&fs::read(key.path()).unwrap()).unwrap();
        let (encrypt, k, r) = file.key_from_password(&password).unwrap().to_keys();
        let mut key = Key::default();
        key[..32].copy_from_slice(&encrypt);
        key[32..48].copy_from_slice(&k);
        key[48..].copy_from_slice(&r);
        Self {
            root: root.to_owned(),
            cipher: Aes256CtrPoly1305Aes::new(&key),
        }
    }

    /// The nonce is made of the content: a forger's seals need to be sound, not secret.
    fn seal(&self, plain: &[u8]) -> Vec<u8> {
        let nonce = *Nonce::from_slice(&Sha256::digest(plain)[..16]);
        let mut body = plain.to_vec();
        let tag = self
            .cipher
            .encrypt_in_place_detached(&nonce, &[], &mut body)
            .unwrap();
        [nonce.as_slice(), &body, tag.as_slice()].concat()
    }

    fn read(&self, path: &Path) -> Value {
        let mut sealed = fs::read(path).unwrap();
        let (nonce, rest) = sealed.split_at_mut(16);
        let (body, tag) = rest.split_at_mut(rest.len() - 16);
        self.cipher
            .decrypt_in_place_detached(Nonce::from_slice(nonce), &[], body, Tag::from_slice(tag))
            .unwrap();
        serde_json::from_slice(body).unwrap()
    }

    /// Says in the configuration that the format is of this version.
    pub fn set_version(&self, version: u32) {
        let path = self.root.join("config");
        let mut config = self.read(&path);
        config["version"] = json!(version);
        fs::write(path, self.seal(config.to_string().as_bytes())).unwrap();
    }

    /// A lock of another program; its file's path.
    pub fn lock(&self, exclusive: bool, host: &str, pid: i32, time: Timestamp) -> PathBuf {
        let lock = json!({
            "time": time.to_string(), "exclusive": exclusive, "hostname": host, "username": "somebody",
            "pid": pid, "uid": 0, "gid": 0,
        });
        let sealed = self.seal(lock.to_string().as_bytes());
        let id: String = Sha256::digest(&sealed)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let path = self.root.join("locks").join(id);
        fs::write(&path, sealed).unwrap();
        path
    }
}
