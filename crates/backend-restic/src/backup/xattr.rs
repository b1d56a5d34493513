//! Reads the extended attributes of one entry, links not followed.

use std::ffi::CStr;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{lgetxattr, llistxattr};
use rustix::io::Errno;
use serde::de::DeserializeOwned;

/// The kernel's limit for the list of names, and for one value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const MOST: usize = 64 * 1024;

/// The attributes in whatever type the library's node keeps them: that type is private, and its serialised form is
/// the repository's format.
pub(crate) fn read<T: DeserializeOwned + Default>(path: &Path) -> io::Result<T> {
    // The empty list is by far the most common answer and needs no buffer.
    let size = match llistxattr(path, &mut [0_u8; 0][..]) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(T::default()),
        Ok(size) => size,
        Err(error) => return Err(error.into()),
    };
    let mut names = vec![0_u8; size.clamp(4096, MOST)];
    let filled = llistxattr(path, &mut names[..])?;
    let mut found = Vec::new();
    let mut value = vec![0_u8; MOST];
    for name in names[..filled].split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        let text = name.to_str().map_err(|_| io::Error::other("a name is not UTF-8, the format cannot keep it"))?;
        match lgetxattr(path, name, &mut value[..]) {
            Ok(length) => found.push(serde_json::json!({ "name": text, "value": STANDARD.encode(&value[..length]) })),
            // Gone since it was listed.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    serde_json::from_value(serde_json::Value::Array(found)).map_err(io::Error::other)
}
