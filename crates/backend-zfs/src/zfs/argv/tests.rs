use super::*;

pub(crate) fn ds(name: &str) -> DatasetName {
    DatasetName::new(name).unwrap()
}

pub(crate) fn snap(name: &str) -> SnapshotName {
    SnapshotName::new(name).unwrap()
}

fn line(args: &Args) -> String {
    let words: Vec<_> = args.iter().map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// No vector can take more than it names.
fn harmless(args: &Args) {
    let words: Vec<_> = args
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    assert!(words[0] != "rollback", "{words:?}");
    for flag in ["-r", "-R", "-d", "-f", "-F", "-rR"] {
        let allowed = matches!(words[0].as_str(), "list" | "get") && flag == "-d";
        assert!(allowed || !words.iter().any(|word| word == flag), "{words:?}");
    }
    if words[0] == "destroy" {
        assert_eq!(words.len(), 2, "{words:?}");
        assert!(!words[1].contains('%'), "a range: {words:?}");
    }
}

#[test]
fn vectors_are_as_expected() {
    let (a, b, at) = (ds("tank/a b"), ds("tank/c"), snap("one two"));
    let tag = HoldTag::new("reseed:x").unwrap();
    let (of, copy) = (
        BookmarkOf::Snapshot(at.clone()),
        BookmarkOf::Bookmark(snap("theirs")),
    );
    let all = [
        (
            get_facts([&a, &b], 255),
            "get -Hp -o name,property,value,source type,guid,mountpoint,canmount,origin,receive_resume_token,\
             reseed:marker,reseed:stage,reseed:end-00000000000000ff tank/a b tank/c",
        ),
        (
            list_snapshots([&a]),
            "list -Hp -t snapshot -d 1 -o name,guid,createtxg,creation,userrefs,referenced,reseed:taken,\
             reseed:unseeded,reseed:digest,name tank/a b",
        ),
        (
            list_these([(&a, &at)]),
            "list -Hp -t snapshot -o name,guid,createtxg,creation,userrefs,referenced,reseed:taken,\
             reseed:unseeded,reseed:digest,name tank/a b@one two",
        ),
        (
            apart(SNAPSHOT_COLUMNS, Some(SNAPSHOTS), [a.as_str()], 255),
            "get -Hp -d 1 -t snapshot -o name,property,value guid,createtxg,creation,userrefs,referenced,\
             reseed:taken,reseed:unseeded,reseed:digest,reseed:end-00000000000000ff tank/a b",
        ),
        (
            apart(&["name", "guid", TAKEN], None, ["tank/a b@one two"], 1),
            "get -Hp -o name,property,value guid,reseed:taken,reseed:end-0000000000000001 tank/a b@one two",
        ),
        (
            list_children(&b),
            "list -Hp -t filesystem,volume -d 1 -o name tank/c",
        ),
        (
            list_origins(&b, 255),
            "get -Hp -d 1 -t filesystem,volume -o name,property,value reseed:origin,reseed:end-00000000000000ff tank/c",
        ),
        (
            get_origins([&a, &b], 255),
            "get -Hp -o name,property,value,source reseed:origin,reseed:end-00000000000000ff tank/a b tank/c",
        ),
        (holds([(&a, &at)]), "holds -H tank/a b@one two"),
        (
            hold(&tag, [(&a, &at), (&b, &at)]),
            "hold reseed:x tank/a b@one two tank/c@one two",
        ),
        (release(&tag, [(&b, &at)]), "release reseed:x tank/c@one two"),
        (
            snapshot([&a, &b], &at, &[(TAKEN, "t"), (UNSEEDED, "on")]),
            "snapshot -o reseed:taken=t -o reseed:unseeded=on tank/a b@one two tank/c@one two",
        ),
        (
            set(&b, &[("canmount", "on"), (MARKER, "{}")]),
            "set canmount=on reseed:marker={} tank/c",
        ),
        (
            set_on_snapshot(&b, &at, &[(DIGEST, "d")]),
            "set reseed:digest=d tank/c@one two",
        ),
        (inherit(&b, STAGE), "inherit reseed:stage tank/c"),
        (
            destroy_snapshots(&b, [&at, &snap("x")]),
            "destroy tank/c@one two,x",
        ),
        (destroy_dataset(&b), "destroy tank/c"),
        (
            create(&b, &[("canmount", "off")]),
            "create -o canmount=off tank/c",
        ),
        (
            clone((&a, &at), &b, &[("canmount", "noauto")]),
            "clone -o canmount=noauto tank/a b@one two tank/c",
        ),
        (promote(&b), "promote tank/c"),
        (rename(&a, &b), "rename -u tank/a b tank/c"),
        (rename_volume(&a, &b), "rename tank/a b tank/c"),
        (mount(&b), "mount tank/c"),
        (unmount(&b), "unmount tank/c"),
        (
            list_lineages([&b]),
            "list -Hp -t filesystem,volume,snapshot,bookmark -d 1 -o name,guid,createtxg,creation,written,\
             encryption,quota,refquota,reservation,refreservation,receive_resume_token,reseed:taken,reseed:unseeded,reseed:digest,userrefs,reseed:origin,name tank/c",
        ),
        (allowed(&b), "allow tank/c"),
        (
            bookmark_all("tank", [(&a, &of, &snap("m")), (&b, &copy, &snap("m"))]),
            "program tank - tank/a b@one two tank/a b#m tank/c#theirs tank/c#m",
        ),
        (
            send_full(&b, &at, Form::Plain),
            "send -P -v -p -L -c tank/c@one two",
        ),
        (
            send_since(&b, &at, &snap("x"), Form::Raw),
            "send -P -v -p -L -c -w -I @one two tank/c@x",
        ),
        (
            send_since_bookmark(&b, &snap("m"), &at, Form::Decrypted),
            "send -P -v -L -c -i tank/c#m tank/c@one two",
        ),
        (send_rest("1-ab"), "send -P -v -t 1-ab"),
        (decode_token("1-ab"), "send -nvPt 1-ab"),
        (
            receive(&b, &[("canmount", "noauto"), ("readonly", "on")], NEVER_RECEIVED),
            "receive -s -u -x mountpoint -x sharenfs -x sharesmb -x quota -x refquota -x reservation \
             -x refreservation -x org.openzfs.systemd:ignore -x reseed:marker -x reseed:stage -x reseed:origin \
             -x reseed:settings -x reseed:sent -o canmount=noauto -o readonly=on tank/c",
        ),
        (
            receive(&b, &[], NEVER_RECEIVED_ENCRYPTING),
            "receive -s -u -x encryption -x mountpoint -x canmount -x readonly -x sharenfs -x sharesmb -x quota -x refquota \
             -x reservation -x refreservation -x org.openzfs.systemd:ignore -x reseed:marker -x reseed:stage -x reseed:origin \
             -x reseed:settings -x reseed:sent tank/c",
        ),
        (receive_rest(&b), "receive -s -u tank/c"),
        (receive_abort(&b), "receive -A tank/c"),
        (bookmark(&b, &of, &snap("m")), "bookmark tank/c@one two tank/c#m"),
        (bookmark(&b, &copy, &snap("m")), "bookmark tank/c#theirs tank/c#m"),
        (destroy_bookmark(&b, &snap("m")), "destroy tank/c#m"),
        (
            get_way_back(&b),
            "get -Hp -o value,source encryption,reseed:settings tank/c",
        ),
        (get_encryption_root(&b), "get -Hp -o value encryptionroot tank/c"),
        (get_key(&b), "get -Hp -o value encryptionroot,keystatus tank/c"),
        (
            get_local(&b, SETTINGS),
            "get -Hp -s local -o value reseed:settings tank/c",
        ),
        (get_keystatus(&b), "get -Hp -o value keystatus tank/c"),
        (get_written(&b, &at), "get -Hp -o value written@one two tank/c"),
        (list_pools(), "list -Hp -o name,health"),
        (version(), "version"),
    ];
    for (args, expected) in &all {
        harmless(args);
        assert_eq!(line(args), *expected);
    }
}
