//! Test vectors of format version 1, also in `docs/digest.md`. Computed by a separate program from the text of that page.

use super::*;

fn file(content: &[u8], secs: i64, nanos: u32, link: Option<u64>) -> Kind {
    Kind::File {
        size: content.len() as u64,
        mtime: FileTime { secs, nanos },
        content: content_hash(content),
        link,
    }
}

#[test]
fn an_empty_root() {
    let tree = TreeHasher::new(
        Attrs {
            mode: 0o755,
            uid: 0,
            gid: 0,
        },
        Xattrs::default(),
    );
    assert_eq!(
        tree.digest().unwrap().to_string(),
        "b3t1:50babe96677109f20a598b02e241a7a5446b0ef51cbbfcdc5fd9870becc6657f"
    );
}

#[test]
fn one_file() {
    let mut tree = TreeHasher::new(
        Attrs {
            mode: 0o755,
            uid: 0,
            gid: 0,
        },
        Xattrs::default(),
    );
    let attrs = Attrs {
        mode: 0o644,
        uid: 1000,
        gid: 100,
    };
    tree.insert(
        "hello",
        attrs,
        Xattrs::default(),
        file(b"hello\n", 1_700_000_000, 123_456_789, None),
    )
    .unwrap();
    assert_eq!(
        tree.digest().unwrap().to_string(),
        "b3t1:14b52f68346678bea45b08a60878ad42548224180f8ea737ef8b766e25936d16"
    );
}

#[test]
fn one_of_everything() {
    let none = Xattrs::default;
    let root = Xattrs::from_pairs([("user.reseed.run", "17"), ("user.b", "2"), ("user.a", "1")]);
    let mut tree = TreeHasher::new(
        Attrs {
            mode: 0o2750,
            uid: 1,
            gid: 2,
        },
        root,
    );
    let attrs = |mode| Attrs {
        mode,
        uid: 1000,
        gid: 100,
    };
    tree.insert("dir", attrs(0o755), none(), Kind::Dir).unwrap();
    tree.insert("dir/a", attrs(0o644), none(), file(b"same", 0, 0, Some(1)))
        .unwrap();
    tree.insert(
        "dir/\u{fc}\n",
        attrs(0o4755),
        Xattrs::from_pairs([("user.colour", "blue")]),
        file(b"", -1, 999_999_999, None),
    )
    .unwrap();
    tree.insert("dir/sub", attrs(0o700), none(), Kind::Dir).unwrap();
    tree.insert("dir.b", attrs(0o644), none(), file(b"same", 0, 0, Some(1)))
        .unwrap();
    tree.insert(
        "link",
        attrs(0o777),
        none(),
        Kind::Symlink {
            target: b"../to".to_vec(),
        },
    )
    .unwrap();
    tree.insert("pipe", attrs(0o600), none(), Kind::Fifo).unwrap();
    tree.insert("sock", attrs(0o600), none(), Kind::Socket).unwrap();
    tree.insert(
        "tty",
        attrs(0o620),
        none(),
        Kind::CharDevice { major: 4, minor: 64 },
    )
    .unwrap();
    tree.insert(
        "disk",
        attrs(0o660),
        none(),
        Kind::BlockDevice { major: 8, minor: 1 },
    )
    .unwrap();
    tree.insert(".zfs", attrs(0o777), none(), Kind::Dir).unwrap();
    tree.insert(".zfs/snapshot", attrs(0o777), none(), Kind::Dir)
        .unwrap();
    assert_eq!(
        tree.digest().unwrap().to_string(),
        "b3t1:2d00516c53a185ffd70feac7e6b0b75f4c4dcab5d6e52328788fd17df362c48a"
    );
}
