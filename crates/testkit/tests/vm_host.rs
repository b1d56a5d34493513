//! The machines themselves, driven from the host. Run by `cargo xtask vm`: every test boots at least one.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use reseed_testkit::vm::{Config, Disk, GuestCommand, Init, Machine, Problem, suite};
use tempfile::TempDir;

/// Beside what was built: big, and on a real disk.
fn scratch() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn sh(text: &str) -> GuestCommand {
    GuestCommand::script(text)
}

#[tokio::test]
async fn vm_a_power_cut_keeps_what_was_synced() {
    let dir = scratch();
    let mut config = Config::new(dir.path().join("machine"));
    config
        .disks
        .push(Disk::create(dir.path().join("disk"), 256).unwrap());
    let mut machine = Machine::boot(&config).await.unwrap();
    let create = "zpool create -m /tmp/tank tank /dev/vda1
        seq 100000 > /tmp/tank/synced
        zpool sync tank
        sha256sum < /tmp/tank/synced";
    let before = machine.run(&sh(create)).await.unwrap().require_success().unwrap();
    // Without a timer of its own the pool writes nothing back until it is told to.
    let unsynced = "echo 3600 > /sys/module/zfs/parameters/zfs_txg_timeout
        zpool sync tank
        echo lost > /tmp/tank/unsynced
        echo mark written > /dev/ttyS1
        sleep 100";
    machine.start(&sh(unsynced)).await.unwrap();
    machine
        .wait_for_mark("written", Duration::from_secs(60))
        .await
        .unwrap();
    machine.cut_power().await.unwrap();

    let mut machine = Machine::boot(&config).await.unwrap();
    let lost = machine.run(&sh("zpool list tank")).await.unwrap();
    assert_ne!(lost.code, 0, "a pool is not imported by itself");
    // Without -f: the machine has the same host id, so the pool is its own.
    let import = "zpool import -d /dev/vda1 tank
        test \"$(zpool list -Ho health tank)\" = ONLINE
        test ! -e /tmp/tank/unsynced
        sha256sum < /tmp/tank/synced";
    let after = machine.run(&sh(import)).await.unwrap().require_success().unwrap();
    assert_eq!(after.stdout, before.stdout);
    machine.power_off().await.unwrap();
}

#[tokio::test]
async fn vm_commands_answer_and_run_out_of_time_readably() {
    let dir = scratch();
    let mut machine = Machine::boot(&Config::new(dir.path())).await.unwrap();

    let command = GuestCommand::new(["/bin/sh", "-c", "pwd; echo \"$WORD\" >&2; exit 3"])
        .dir("/usr/lib")
        .env("WORD", "it's $HOME");
    let said = machine.run(&command).await.unwrap();
    assert_eq!(
        (said.code, said.stdout.as_str(), said.stderr.as_str()),
        (3, "/usr/lib\n", "it's $HOME\n")
    );

    // It and what it has started are killed, and the machine goes on.
    let slow = sh("echo before; sleep 987 & sleep 987").limit(Duration::from_secs(2));
    let error = machine.run(&slow).await.unwrap_err();
    assert_eq!(error.problem(), Problem::TimeLimit);
    let text = error.to_string();
    assert!(
        text.contains("took longer than 2 s and was killed") && text.contains("    before"),
        "{text}"
    );
    let left = machine.run(&sh("! ps ax | grep '[s]leep 987'")).await.unwrap();
    assert_eq!(left.code, 0, "{}", left.stdout);

    // Files come back, and the host's own are safe.
    let wrote = sh("echo back > /run/reseed/share/result; echo in > /etc/hostname");
    machine.run(&wrote).await.unwrap().require_success().unwrap();
    assert_eq!(
        std::fs::read_to_string(machine.share().join("result")).unwrap(),
        "back\n"
    );
    assert_ne!(
        std::fs::read_to_string("/etc/hostname").unwrap_or_default(),
        "in\n"
    );

    let missed = machine
        .wait_for_mark("never", Duration::from_millis(200))
        .await
        .unwrap_err();
    assert!(missed.to_string().contains("did not say `mark never`"));

    // A guest that doesn't even take the order to kill: the one who takes orders is stopped.
    let deaf = "taker=$(ps -o ppid= -p $PPID); echo stopping; kill -STOP $taker; sleep 986";
    let error = machine
        .run(&sh(deaf).limit(Duration::from_secs(2)))
        .await
        .unwrap_err();
    assert_eq!(error.problem(), Problem::Died);
    let text = error.to_string();
    assert!(
        text.contains("could not be killed, so the machine was") && text.contains("    stopping"),
        "{text}"
    );
    let gone = machine.run(&sh("true")).await.unwrap_err();
    assert_eq!(gone.problem(), Problem::Died);
}

#[tokio::test]
async fn vm_systemd_runs_a_unit_and_tells_how_it_ended() {
    let dir = scratch();
    let mut config = Config::new(dir.path());
    config.init = Init::Systemd;
    let unit = "[Unit]\nDescription=A unit under test\n[Service]\nType=oneshot\nRemainAfterExit=yes\n\
                ExecStart=/bin/sh -c 'zpool version > /run/reseed/share/from-unit'\n";
    config.units.push(("probe.service".to_owned(), unit.to_owned()));
    config.units.push((
        "broken.service".to_owned(),
        "[Service]\nType=oneshot\nExecStart=/bin/false\n".to_owned(),
    ));
    let mut machine = Machine::boot(&config).await.unwrap();

    let started = machine
        .run(&GuestCommand::new(["systemctl", "start", "probe.service"]))
        .await;
    started.unwrap().require_success().unwrap();
    let told = std::fs::read_to_string(machine.share().join("from-unit")).unwrap();
    assert!(told.contains("zfs-kmod-"), "{told}");

    let failed = machine
        .run(&GuestCommand::new(["systemctl", "start", "broken.service"]))
        .await
        .unwrap();
    assert_ne!(failed.code, 0);
    let why =
        sh("systemctl show -P Result broken.service; systemctl is-active probe.service; cat /proc/1/comm");
    let why = machine.run(&why).await.unwrap().require_success().unwrap();
    assert_eq!(why.stdout, "exit-code\nactive\nsystemd\n");
    let log = GuestCommand::new(["journalctl", "--no-pager", "-u", "broken.service"]);
    let log = machine.run(&log).await.unwrap();
    assert!(log.stdout.contains("status=1/FAILURE"), "{}", log.stdout);
    machine.power_off().await.unwrap();
}

/// A program that behaves as a test binary with one test per name.
fn pretended_tests(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("pretended");
    let text = r#"#!/bin/sh
test "$RESEED_VM" = 1 || exit 9
case $2 in
vm_dies) echo c > /proc/sysrq-trigger ;;
vm_fails) echo "thread 'vm_fails' panicked"; exit 101 ;;
vm_hangs) echo "about to hang"; sleep 1000 ;;
vm_unknown) echo "test result: ok. 0 passed; 0 failed;"; exit 0 ;;
esac
echo "test result: ok. 1 passed; 0 failed;"
"#;
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn vm_every_test_has_a_verdict_whatever_the_machine_does() {
    let dir = scratch();
    let binary = pretended_tests(dir.path());
    let names = [
        "vm_first",
        "vm_fails",
        "vm_hangs",
        "vm_unknown",
        "vm_dies",
        "vm_last",
    ];
    let plan = suite::Plan {
        tests: names
            .iter()
            .map(|name| suite::Test {
                suite: "pretended vm".to_owned(),
                name: (*name).to_owned(),
                binary: binary.clone(),
                dir: dir.path().to_owned(),
                on_host: false,
            })
            .collect(),
        dir: dir.path().join("machines"),
        built: dir.path().to_owned(),
        machines: 1,
        processors: 1,
        limit: Duration::from_secs(5),
    };
    let events = Mutex::new(Vec::new());
    suite::run(&plan, &|event| events.lock().unwrap().push(event)).await;

    let (mut boots, mut verdicts) = (0, Vec::new());
    for event in events.into_inner().unwrap() {
        match event {
            suite::Event::Booted(_) => boots += 1,
            suite::Event::Ended(verdict) => verdicts.push((verdict.test.name, verdict.failure)),
        }
    }
    assert_eq!(boots, 2, "one machine, and one after its death");
    let said = [
        None,
        Some("thread 'vm_fails' panicked"),
        Some("about to hang"),
        Some("no test of this name ran"),
        Some("Kernel panic"),
        None,
    ];
    assert_eq!(verdicts.len(), names.len());
    for (((name, failure), expected), ours) in verdicts.iter().zip(said).zip(names) {
        assert_eq!(name, ours);
        match expected {
            None => assert_eq!(*failure, None),
            Some(words) => {
                let failure = failure.as_deref().unwrap_or("it passed");
                assert!(failure.contains(words), "{name}: {failure}");
            }
        }
    }
}
