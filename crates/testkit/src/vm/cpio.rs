//! An archive as the kernel unpacks it (cpio, "newc"): enough for an initrd of ours, and nothing else.

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// An archive in the making. Directories have to come before what is in them.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    pub(super) fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY, b"");
    }

    /// A file that anybody may run.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, PROGRAM, content);
    }

    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.entry(path, LINK, target.as_bytes());
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, b"");
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        let inode = self.entries;
        self.entries += 1;
        let links = 1;
        let (name, size) = (path.len() + 1, content.len());
        // magic ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let header = format!(
            "070701{inode:08x}{mode:08x}{0:08x}{0:08x}{links:08x}{0:08x}{size:08x}{0:08x}{0:08x}{0:08x}{0:08x}{name:08x}{0:08x}",
            0
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_header_a_name_and_content_each_padded_to_four() {
        let mut archive = Archive::default();
        archive.directory("bin");
        archive.file("bin/x", b"hello");
        archive.link("l", "bin/x");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        // The directory: 110 bytes of header, "bin\0", padded to 116.
        assert_eq!(&bytes[..14], b"07070100000000");
        assert_eq!(&bytes[14..22], b"000041ed");
        assert_eq!(&bytes[110..116], b"bin\0\0\0");
        let file = &bytes[116..];
        assert_eq!(&file[14..22], b"000081ed");
        assert_eq!(&file[54..62], b"00000005");
        assert_eq!(&file[94..102], b"00000006");
        assert_eq!(&file[110..124], b"bin/x\0hello\0\0\0");
        let end = String::from_utf8_lossy(&bytes);
        assert!(end.trim_end_matches('\0').ends_with("TRAILER!!!"));
    }
}
