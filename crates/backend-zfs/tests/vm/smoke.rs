//! That a pool can be had at all.

use reseed_core::exec::Command;
use reseed_testkit::vm::pool::{ScratchPool, blocking};

fn zfs(args: &[&str]) -> String {
    let output = blocking(Command::new("zfs").args(args)).unwrap();
    String::from_utf8(output.whole_stdout().unwrap().to_vec()).unwrap()
}

#[test]
fn vm_pool_holds_a_dataset_and_its_snapshot() {
    let pool = ScratchPool::new(256);
    let dataset = pool.dataset("media");
    zfs(&["create", "-o", "recordsize=128K", &dataset]);
    let file = pool.mountpoint().join("media/film");
    std::fs::write(&file, "moving pictures").unwrap();
    zfs(&["snapshot", &format!("{dataset}@before")]);
    std::fs::remove_file(&file).unwrap();
    let listed = zfs(&[
        "list",
        "-Hp",
        "-t",
        "all",
        "-o",
        "name,type,recordsize",
        "-r",
        &dataset,
    ]);
    assert_eq!(
        listed,
        format!("{dataset}\tfilesystem\t131072\n{dataset}@before\tsnapshot\t-\n")
    );
    let kept = pool.mountpoint().join("media/.zfs/snapshot/before/film");
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "moving pictures");
}

#[test]
fn vm_pool_is_gone_with_its_value() {
    let pool = ScratchPool::with(64, 2, &["-o", "autotrim=off"]);
    let (name, dir) = (pool.name().to_owned(), pool.dir().to_owned());
    drop(pool);
    assert!(blocking(Command::new("zpool").args(["list", &name])).is_err());
    assert!(!dir.exists());
}
