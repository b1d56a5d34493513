//! The demo heals all five failures.

use crate::lab::run_in;

#[test]
fn five_failures_heal() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run_in(dir.path(), &["--json", "demo", "--dir", "lab"]).expect(0);
    let json = ran.json();
    let scenarios = json["scenarios"].as_array().unwrap();
    let names: Vec<&str> = scenarios.iter().filter_map(|s| s["name"].as_str()).collect();
    assert_eq!(
        names,
        [
            "dataset-gone",
            "replica-gone",
            "replica-corrupt",
            "all-unreachable",
            "crash-mid-restore"
        ]
    );
    for scenario in scenarios {
        let empty = scenario["name"] == "all-unreachable";
        assert_eq!(
            scenario["digest_matches"],
            if empty {
                serde_json::Value::Null
            } else {
                true.into()
            },
            "{scenario}"
        );
        assert_eq!(
            scenario["outcome"],
            if empty { "started-empty" } else { "restored" },
            "{scenario}"
        );
        assert_eq!(scenario["source"].is_null(), empty, "{scenario}");
        assert!(
            scenario["seconds"].is_f64() && scenario["bytes"].is_u64(),
            "{scenario}"
        );
    }
    let lab = json["lab"].as_str().unwrap();
    let config = format!("{lab}/reseed.toml");
    run_in(dir.path(), &["--config", &config, "status"]).expect(0);
    // A lab is new, or it is nobody's business.
    run_in(dir.path(), &["demo", "--dir", "lab"]).expect(1);
}
