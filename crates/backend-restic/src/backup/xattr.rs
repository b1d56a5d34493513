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
    // Almost always there are none, or few.
    let mut names = vec![0_u8; 1024];
    let filled = loop {
        match llistxattr(path, &mut names[..]) {
            Ok(0) | Err(Errno::NOTSUP) => return Ok(T::default()),
            Ok(filled) => break filled,
            Err(Errno::RANGE) if names.len() < MOST => names.resize(MOST, 0),
            Err(error) => return Err(error.into()),
        }
    };
    let mut found = Vec::new();
    let mut value = vec![0_u8; MOST];
    for name in names[..filled].split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        let text = name
            .to_str()
            .map_err(|_| io::Error::other("a name is not UTF-8, the format cannot keep it"))?;
        match lgetxattr(path, name, &mut value[..]) {
            Ok(length) => {
                found.push(serde_json::json!({ "name": text, "value": STANDARD.encode(&value[..length]) }));
            }
            // Gone since it was listed.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    serde_json::from_value(serde_json::Value::Array(found)).map_err(io::Error::other)
}
