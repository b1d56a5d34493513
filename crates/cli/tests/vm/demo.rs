//! The demo on real ZFS: each failure ends as it should, from where it should.

use crate::lab::run_in;
use crate::zfs_lab::sure;

/// The demo's pools stay, for whoever wants to go on with them.
struct Pools;

impl Drop for Pools {
    fn drop(&mut self) {
        for pool in sure(&["zpool", "list", "-H", "-o", "name"]).lines() {
            if pool.starts_with("reseed-demo-") {
                sure(&["zpool", "destroy", "-f", pool]);
            }
        }
    }
}

#[test]
fn vm_the_demo_heals_five_failures_on_real_zfs() {
    let dir = tempfile::tempdir().unwrap();
    let _pools = Pools;
    let ran = run_in(
        dir.path(),
        &["--json", "demo", "--zfs", "--small", "--dir", "lab"],
    );
    let json = ran.json();
    let told: Vec<(String, String, String, String)> = json["scenarios"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let text = |key: &str| match &one[key] {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            (
                text("name"),
                text("source"),
                text("outcome"),
                text("digest_matches"),
            )
        })
        .collect();
    let expected = [
        ("dataset-gone", "replica", "restored", "true"),
        ("replica-gone", "offsite", "restored", "true"),
        ("replica-corrupt", "offsite", "restored", "true"),
        ("all-unreachable", "null", "started-empty", "null"),
        ("crash-mid-restore", "replica", "restored", "true"),
    ];
    let expected = expected.map(|(a, b, c, d)| (a.to_owned(), b.to_owned(), c.to_owned(), d.to_owned()));
    assert_eq!(told, expected, "{json:#}");
    ran.expect(0);
}
