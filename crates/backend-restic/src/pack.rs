//! Reads blobs out of packs and proves that they are what their ids say.
//!
//! The format is from restic's design document: a pack is blobs one after another, each encrypted, each possibly
//! compressed. Every failure names the pack. Nothing here panics, whatever the bytes are: lengths come from an index
//! that anybody may have damaged.

use std::num::NonZeroU32;

use rustic_core::repofile::IndexBlob;
use rustic_core::{BlobId, FileType, Id};

use crate::cipher::{Cipher, OVERHEAD, digest};
use crate::error::{EngineError, Result};
use crate::store::{Store, layout};

/// A blob that claims to be larger is not believed: writers cut files into at most 8 MiB, and trees do not get there.
const MAX_BLOB: usize = 1 << 30;

/// Where a blob lies in its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) offset: u32,
    pub(crate) length: u32,
    /// 0 when it is not compressed.
    pub(crate) uncompressed: u32,
}

impl Location {
    /// As the index has it.
    pub(crate) fn new(offset: u32, length: u32, uncompressed: Option<NonZeroU32>) -> Self {
        Self {
            offset,
            length,
            uncompressed: uncompressed.map_or(0, NonZeroU32::get),
        }
    }

    /// Of a pack's blob.
    pub(crate) fn of(blob: &IndexBlob) -> Self {
        let at = &blob.location;
        Self::new(at.offset, at.length, at.uncompressed_length)
    }

    /// Length of the plain data; `None` when the index makes no sense.
    pub(crate) fn plain_len(self) -> Option<u32> {
        match self.uncompressed {
            0 => self.length.checked_sub(u32::try_from(OVERHEAD).ok()?),
            length => Some(length),
        }
    }
}

/// Turns sealed blobs into plain ones, reusing its buffer from one to the next.
pub(crate) struct Unsealer {
    cipher: Cipher,
    zstd: zstd::bulk::Decompressor<'static>,
    plain: Vec<u8>,
}

impl Unsealer {
    pub(crate) fn new(cipher: Cipher) -> Result<Self> {
        let zstd = zstd::bulk::Decompressor::new().map_err(|error| EngineError::Invalid {
            detail: format!("cannot start zstd: {error}"),
        })?;
        Ok(Self {
            cipher,
            zstd,
            plain: Vec::new(),
        })
    }

    /// Opens one blob where it lies. The error is in words, for the caller to name pack and files.
    pub(crate) fn open<'a>(
        &'a mut self,
        sealed: &'a mut [u8],
        at: Location,
        id: &[u8; 32],
    ) -> std::result::Result<&'a [u8], String> {
        let name = || crate::cipher::hex(id)[..8].to_owned();
        let opened = self
            .cipher
            .open(sealed)
            .ok_or_else(|| format!("blob {} at {} does not decrypt", name(), at.offset))?;
        let plain: &[u8] = if at.uncompressed == 0 {
            opened
        } else {
            let length = at.uncompressed as usize;
            if length > MAX_BLOB {
                return Err(format!("blob {} claims {length} bytes", name()));
            }
            self.plain.clear();
            self.plain.try_reserve_exact(length).map_err(|_| {
                format!(
                    "blob {} needs {length} bytes of memory, which are not there",
                    name()
                )
            })?;
            self.zstd
                .decompress_to_buffer(opened, &mut self.plain)
                .map_err(|error| format!("blob {} does not decompress: {error}", name()))?;
            if self.plain.len() != length {
                return Err(format!(
                    "blob {} has {} bytes instead of {length}",
                    name(),
                    self.plain.len()
                ));
            }
            &self.plain
        };
        if digest(plain) == *id {
            Ok(plain)
        } else {
            Err(format!("blob {} has another content than its id", name()))
        }
    }
}

/// Reads part of a pack.
pub(crate) fn read_range(store: &Store, pack: &Id, offset: u32, length: u32) -> Result<Vec<u8>> {
    let path = layout::path_of(store.prefix(), FileType::Pack, pack);
    let bytes = store
        .read_range(&path, offset.into(), length.into())
        .map_err(|error| match error {
            EngineError::Unreadable { detail, .. } => EngineError::CorruptPack {
                pack: pack.to_hex().to_string(),
                detail,
                files: Vec::new(),
                more: 0,
            },
            other => other,
        })?;
    // Takes the buffer over without copying, as nobody else holds it.
    Ok(Vec::from(bytes))
}

/// Raw bytes of a blob's id.
pub(crate) fn raw_id(id: &Id) -> Result<[u8; 32]> {
    let hex = id.to_hex();
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let mut raw = [0; 32];
    for (byte, pair) in raw.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        let (high, low) = (digit(pair[0]), digit(pair[1]));
        *byte = high
            .zip(low)
            .map(|(high, low)| high << 4 | low)
            .ok_or_else(|| EngineError::Invalid {
                detail: "an id is not hexadecimal".into(),
            })?;
    }
    Ok(raw)
}

/// Reads and proves one blob.
pub(crate) fn read_blob(
    store: &Store,
    unsealer: &mut Unsealer,
    pack: &Id,
    at: Location,
    id: &BlobId,
) -> Result<Vec<u8>> {
    let mut sealed = read_range(store, pack, at.offset, at.length)?;
    open_blob(unsealer, &mut sealed, pack, at, id)
}

/// Proves one blob that was read.
pub(crate) fn open_blob(
    unsealer: &mut Unsealer,
    sealed: &mut [u8],
    pack: &Id,
    at: Location,
    id: &BlobId,
) -> Result<Vec<u8>> {
    unsealer
        .open(sealed, at, &raw_id(id)?)
        .map(<[u8]>::to_vec)
        .map_err(|detail| EngineError::CorruptPack {
            pack: pack.to_hex().to_string(),
            detail,
            files: Vec::new(),
            more: 0,
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustic_core::repofile::MasterKey;

    use super::*;

    fn sealed(cipher: &Cipher, plain: &[u8], compress: bool) -> (Vec<u8>, Location, [u8; 32]) {
        let body = if compress {
            zstd::bulk::compress(plain, 1).unwrap()
        } else {
            plain.to_vec()
        };
        let sealed = cipher.seal(&body).unwrap();
        let at = Location {
            offset: 0,
            length: u32::try_from(sealed.len()).unwrap(),
            uncompressed: if compress {
                u32::try_from(plain.len()).unwrap()
            } else {
                0
            },
        };
        (sealed, at, digest(plain))
    }

    proptest! {
        #[test]
        fn a_sound_blob_opens_and_a_flipped_bit_does_not(
            plain in proptest::collection::vec(any::<u8>(), 1..3000),
            compress: bool,
            at in any::<proptest::sample::Index>(),
        ) {
            let cipher = Cipher::new(MasterKey::new()).unwrap();
            let mut unsealer = Unsealer::new(cipher.clone()).unwrap();
            let (good, location, id) = sealed(&cipher, &plain, compress);
            prop_assert_eq!(location.plain_len(), Some(u32::try_from(plain.len()).unwrap()));
            let mut copy = good.clone();
            prop_assert_eq!(unsealer.open(&mut copy, location, &id).unwrap(), &plain[..]);
            let mut bad = good;
            let at = at.index(bad.len());
            bad[at] ^= 1;
            prop_assert!(unsealer.open(&mut bad, location, &id).is_err());
        }

        #[test]
        fn any_claimed_length_is_survived(
            plain in proptest::collection::vec(any::<u8>(), 1..300),
            claimed: u32,
        ) {
            let cipher = Cipher::new(MasterKey::new()).unwrap();
            let mut unsealer = Unsealer::new(cipher.clone()).unwrap();
            let (mut good, location, id) = sealed(&cipher, &plain, true);
            let lying = Location { uncompressed: claimed % (1 << 21), ..location };
            let opened = unsealer.open(&mut good, lying, &id);
            prop_assert_eq!(opened.is_ok(), lying.uncompressed == location.uncompressed);
        }
    }

    #[test]
    fn another_blobs_content_is_refused() {
        let cipher = Cipher::new(MasterKey::new()).unwrap();
        let (mut good, location, _) = sealed(&cipher, b"one", false);
        let error = Unsealer::new(cipher)
            .unwrap()
            .open(&mut good, location, &digest(b"two"))
            .unwrap_err();
        assert!(error.contains("another content"), "{error}");
    }

    #[test]
    fn a_length_below_the_overhead_is_no_length() {
        assert_eq!(
            Location {
                offset: 0,
                length: 31,
                uncompressed: 0
            }
            .plain_len(),
            None
        );
    }

    #[test]
    fn ids_keep_their_bytes() {
        let id: Id = "00ff10ab".repeat(8).parse().unwrap();
        assert_eq!(raw_id(&id).unwrap()[..4], [0, 0xff, 0x10, 0xab]);
    }
}
