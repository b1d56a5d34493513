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
use base64::prelude::{BASE64_STANDARD, Engine as _};
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
    master: [u8; 64],
}

/// A master key as restic writes it.
fn parts(key: &[u8; 64]) -> Value {
    let text = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
    json!({"encrypt": text(&key[..32]), "mac": {"k": text(&key[32..48]), "r": text(&key[48..])}})
}

fn join((encrypt, k, r): (Vec<u8>, Vec<u8>, Vec<u8>)) -> Key {
    let mut key = Key::default();
    key[..32].copy_from_slice(&encrypt);
    key[32..48].copy_from_slice(&k);
    key[48..].copy_from_slice(&r);
    key
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file under the name that its content gives it.
pub fn write_named(directory: &Path, content: &[u8]) -> PathBuf {
    let path = directory.join(hex(&Sha256::digest(content)));
    fs::write(&path, content).unwrap();
    path
}

impl Forge {
    /// Makes an empty repository like the engine's, but for its key: that is derived in no time, and each of the many
    /// openings in a test takes a fraction of a second less.
    pub fn create(root: &Path, password: &str) -> Self {
        for name in ["keys", "locks", "snapshots", "index"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        for byte in 0..=255_u8 {
            fs::create_dir_all(root.join(format!("data/{byte:02x}"))).unwrap();
        }
        let mut master = [0_u8; 64];
        for (half, number) in master.chunks_mut(32).zip(0_u8..) {
            half.copy_from_slice(&Sha256::digest([number]));
        }
        let forge = Self {
            root: root.to_owned(),
            cipher: Aes256CtrPoly1305Aes::new(Key::from_slice(&master)),
            master,
        };
        forge.write_quick_key(password);
        let config = json!({
            "version": 2, "id": hex(&Sha256::digest(root.as_os_str().as_encoded_bytes())),
            "chunker_polynomial": "25b468838dcb75",
            "treepack_size": 4 << 20, "treepack_growfactor": 0, "datapack_size": 16 << 20, "datapack_growfactor": 0,
        });
        fs::write(root.join("config"), forge.seal(config.to_string().as_bytes())).unwrap();
        forge
    }

    fn write_quick_key(&self, password: &str) {
        let mut file = KeyFile {
            hostname: None,
            username: None,
            created: None,
            kdf: "scrypt".into(),
            n: 2,
            r: 8,
            p: 1,
            data: Vec::new(),
            salt: vec![7; 64],
        };
        let derived = Self {
            root: self.root.clone(),
            cipher: Aes256CtrPoly1305Aes::new(&join(file.kdf_key(&password).unwrap().to_keys())),
            master: [0; 64],
        };
        file.data = derived.seal(parts(&self.master).to_string().as_bytes());
        let file = serde_json::to_vec(&file).unwrap();
        write_named(&self.root.join("keys"), &file);
    }

    /// Replaces the only key by one that opens quickly.
    pub fn rekey(root: &Path, password: &str) {
        let forge = Self::open(root, password);
        for key in fs::read_dir(root.join("keys")).unwrap() {
            fs::remove_file(key.unwrap().path()).unwrap();
        }
        forge.write_quick_key(password);
    }

    pub fn open(root: &Path, password: &str) -> Self {
        let key = fs::read_dir(root.join("keys")).unwrap().next().unwrap().unwrap();
        let file: KeyFile = serde_json::from_slice(&fs::read(key.path()).unwrap()).unwrap();
        let key = join(file.key_from_password(&password).unwrap().to_keys());
        Self {
            root: root.to_owned(),
            cipher: Aes256CtrPoly1305Aes::new(&key),
            master: key.into(),
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
        let path = self.root.join("locks").join(hex(&Sha256::digest(&sealed)));
        // In a bucket there is no such directory before the first lock.
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, sealed).unwrap();
        path
    }
}
