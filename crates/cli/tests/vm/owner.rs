//! Whose a dataset's topmost directory is: as declared where it is made, after a restore, and when `apply` finds it otherwise. What is
//! in it is never touched.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use crate::zfs_lab::ZfsLab;

/// Owner, group and permissions.
fn of(path: &Path) -> (u32, u32, u32) {
    let meta = fs::metadata(path).unwrap();
    (meta.uid(), meta.gid(), meta.permissions().mode() & 0o7777)
}

fn declare(lab: &ZfsLab, text: &str) {
    lab.configure(&format!("[datasets.\"{}\"]\n{text}", lab.dataset()));
}

#[test]
fn vm_what_is_declared_counts_for_the_topmost_directory_alone() {
    let lab = ZfsLab::new();
    // 1 is the group of daemons wherever there is one.
    declare(&lab, "owner = 1234\ngroup = \"daemon\"\nmode = \"2750\"");
    let lab = lab.started();
    assert_eq!(of(&lab.live()), (1234, 1, 0o2750));
    let inside = lab.live().join("sub/other");
    chown(&inside, Some(77), Some(78)).unwrap();
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o604)).unwrap();
    for command in ["snapshot", "replicate"] {
        lab.run(&[command, "app"]).expect(0);
    }
    assert!(lab.run(&["plan"]).expect(0).out.contains("all is as declared"));

    // Another owner is declared by the time it comes back: he has the directory, and what is in it is as it was.
    declare(&lab, "owner = 4321");
    lab.lose_dataset();
    assert_eq!(lab.preseed(0), ("restored".to_owned(), Some("back".to_owned())));
    lab.assert_whole();
    assert_eq!(of(&lab.live()), (4321, 1, 0o2750));
    assert_eq!(of(&inside), (77, 78, 0o604));

    // Somebody changed it: shown, changed by nothing but `apply`, and then as declared.
    chown(lab.live(), Some(5), Some(6)).unwrap();
    fs::set_permissions(lab.live(), fs::Permissions::from_mode(0o700)).unwrap();
    declare(&lab, "owner = 4321\nmode = \"0751\"");
    let line = format!(
        "~ {}  topmost directory: owner 5 -> 4321, mode 0700 -> 0751\n0 to create, 1 to set\n",
        lab.dataset()
    );
    assert_eq!(lab.run(&["plan"]).expect(0).out, line);
    assert_eq!(of(&lab.live()), (5, 6, 0o700));
    lab.run(&["apply"]).expect(0);
    assert_eq!(of(&lab.live()), (4321, 6, 0o751));
    assert_eq!(of(&inside), (77, 78, 0o604));
    assert!(lab.run(&["apply"]).expect(0).out.contains("all is as declared"));

    // Whom nobody knows keeps no data away, and is told.
    declare(&lab, "owner = \"nobody-of-that-name\"");
    let plan = lab.run(&["plan"]).expect(3);
    assert!(
        plan.out.contains("there is no user nobody-of-that-name"),
        "{plan:?}"
    );
    lab.lose_dataset();
    let ran = lab.run(&["preseed", "app"]).expect(0);
    assert!(format!("{ran:?}").contains("nobody-of-that-name"), "{ran:?}");
    lab.assert_whole();
    assert_eq!(of(&lab.live()), (1234, 1, 0o2750));
}
