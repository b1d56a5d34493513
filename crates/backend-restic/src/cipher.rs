//! Sealing and opening of repository data with the repository's master key.
//!
//! `rustic_core` keeps its cipher to itself; locks and the restorer need one that works in place on a buffer of the
//! caller's. The layout is restic's: 16 bytes nonce, ciphertext, 16 bytes tag.

use aes256ctr_poly1305aes::aead::AeadInPlace;
use aes256ctr_poly1305aes::{Aes256CtrPoly1305Aes, Key, Nonce, Tag};
use rustic_core::repofile::MasterKey;
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use crate::error::{EngineError, Result};

/// Bytes that sealing adds.
pub(crate) const OVERHEAD: usize = NONCE + TAG;
const NONCE: usize = 16;
const TAG: usize = 16;

/// The repository's cipher.
#[derive(Clone)]
pub(crate) struct Cipher(Aes256CtrPoly1305Aes);

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher(***)")
    }
}

impl Cipher {
    pub(crate) fn new(master: MasterKey) -> Result<Self> {
        Self::from_parts((master.encrypt, master.mac.k, master.mac.r))
    }

    /// From the keys for encryption and for the two parts of authentication.
    pub(crate) fn from_parts((mut encrypt, mut k, mut r): (Vec<u8>, Vec<u8>, Vec<u8>)) -> Result<Self> {
        let mut key = Key::default();
        let fits = encrypt.len() == 32 && k.len() == 16 && r.len() == 16;
        if fits {
            key[..32].copy_from_slice(&encrypt);
            key[32..48].copy_from_slice(&k);
            key[48..].copy_from_slice(&r);
        }
        encrypt.zeroize();
        k.zeroize();
        r.zeroize();
        let cipher = fits.then(|| Self(Aes256CtrPoly1305Aes::new(&key)));
        key.zeroize();
        cipher.ok_or_else(|| EngineError::Unreadable {
            what: "the master key".into(),
            detail: "its parts have the wrong length".into(),
        })
    }

    /// Seals `plain` into a fresh vector.
    pub(crate) fn seal(&self, plain: &[u8]) -> Result<Vec<u8>> {
        let mut nonce = Nonce::default();
        rustix::rand::getrandom(&mut nonce[..], rustix::rand::GetRandomFlags::empty())
            .ok()
            .filter(|filled| *filled == NONCE)
            .ok_or_else(|| EngineError::Invalid {
                detail: "the kernel gave no random numbers".into(),
            })?;
        let mut sealed = Vec::with_capacity(plain.len() + OVERHEAD);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let tag = self
            .0
            .encrypt_in_place_detached(&nonce, &[], &mut sealed[NONCE..])
            .map_err(|_| EngineError::Invalid {
                detail: "data too large to encrypt".into(),
            })?;
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    /// Opens `sealed` where it lies; `None` when it was altered.
    pub(crate) fn open<'a>(&self, sealed: &'a mut [u8]) -> Option<&'a mut [u8]> {
        if sealed.len() < OVERHEAD {
            return None;
        }
        let (nonce, rest) = sealed.split_at_mut(NONCE);
        let (body, tag) = rest.split_at_mut(rest.len() - TAG);
        self.0
            .decrypt_in_place_detached(Nonce::from_slice(nonce), &[], body, Tag::from_slice(tag))
            .ok()
            .map(|()| body)
    }
}

/// The id of a blob or file: the SHA-256 of its bytes.
pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Lower-case hex of an id.
pub(crate) fn hex(bytes: &[u8; 32]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cipher() -> Cipher {
        Cipher::new(MasterKey::new()).unwrap()
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens(plain in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let cipher = cipher();
            let mut sealed = cipher.seal(&plain).unwrap();
            prop_assert_eq!(sealed.len(), plain.len() + OVERHEAD);
            prop_assert_eq!(cipher.open(&mut sealed).unwrap(), &plain[..]);
        }

        #[test]
        fn one_flipped_bit_anywhere_is_noticed(
            plain in proptest::collection::vec(any::<u8>(), 0..200),
            at in any::<proptest::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let cipher = cipher();
            let mut sealed = cipher.seal(&plain).unwrap();
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(cipher.open(&mut sealed).is_none());
        }

        #[test]
        fn short_data_does_not_open(len in 0_usize..OVERHEAD) {
            prop_assert!(cipher().open(&mut vec![0; len]).is_none());
        }
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", cipher()), "Cipher(***)");
    }
}
