//! A machine with two pools on disks of its own, and the program in it.

use std::path::Path;
use std::time::Duration;

use reseed_testkit::vm::{Config, Disk, GuestCommand, Machine};
use tempfile::TempDir;

/// The state directory is on a disk, as on any machine; everything else below `/tmp` is gone with the power.
const CONFIG: &str = "host = \"lab\"\nstate_dir = \"/tmp/lab/state\"\n\
    [stores.tank]\ntype = \"zfs\"\nroot = \"tank/svc\"\n\
    [replicas.back]\ntype = \"zfs\"\nroot = \"back/lab\"\n\
    [services.app]\ndatasets = { data = \"/tmp/lab/app/data\", wal = \"/tmp/lab/app/wal\" }\ntries = 1\n\
    [services.one]\npath = \"/tmp/lab/one\"\ntries = 1\n";

/// A machine at home: it boots as often as it has to.
pub(crate) struct Home {
    config: Config,
    machine: Option<Machine>,
    _dir: TempDir,
}

impl Home {
    /// Two pools, and services that have written their first data: noise, so much of it.
    pub(crate) async fn new(bytes: u32) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut config = Config::new(dir.path().join("machine"));
        for disk in ["tank", "back"] {
            config
                .disks
                .push(Disk::create(dir.path().join(disk), 512).unwrap());
        }
        let program = Path::new(env!("CARGO_BIN_EXE_reseed")).parent().unwrap();
        config.shown.push(program.to_owned());
        let machine = Some(Machine::boot(&config).await.unwrap());
        let mut home = Self {
            config,
            machine,
            _dir: dir,
        };
        home.run(&format!(
            "for pool in tank:/dev/vda1 back:/dev/vdb1; do
                 zpool create -O mountpoint=none -O compression=off ${{pool%:*}} ${{pool#*:}}
             done
             zfs create -o mountpoint=/tmp/lab/state tank/state
             cat > /tmp/lab/state/reseed.toml <<'END'\n{CONFIG}END
             reseed init
             reseed preseed --all
             for at in app/data app/wal one; do head -c {bytes} /dev/urandom > /tmp/lab/$at/first; done
             zpool sync"
        ))
        .await;
        home
    }

    fn command(line: &str) -> GuestCommand {
        let program = env!("CARGO_BIN_EXE_reseed");
        // The script's own tools come first in PATH, where there are any.
        let script = format!(
            "export PATH=/tmp/cut:/usr/sbin:/usr/bin:/sbin:/bin
             reseed() {{ {program:?} --config /tmp/lab/state/reseed.toml \"$@\"; }}
             {line}"
        );
        GuestCommand::script(script).limit(Duration::from_secs(200))
    }

    /// Runs a script, which must end well; what it printed.
    pub(crate) async fn run(&mut self, script: &str) -> String {
        let machine = self.machine.as_mut().unwrap();
        let done = machine.run(&Self::command(script)).await.unwrap();
        done.require_success().unwrap().stdout.trim_end().to_owned()
    }

    /// Runs a script and cuts the power in the middle of it: where `zfs` is started with words that this pattern of the
    /// shell matches. Says `cut`, which is run by the shell instead of it, when that is; `$real` is `zfs` itself. Then it
    /// boots again and has the pools back.
    pub(crate) async fn cut(&mut self, script: &str, pattern: &str, instead: &str) {
        let wrapper = format!(
            "mkdir -p /tmp/cut
             cat > /tmp/cut/zfs <<'END'
#!/bin/sh
real=/usr/sbin/zfs
cut() {{ echo mark cut > /dev/ttyS1; }}
case \"$*\" in
{pattern}) {instead}; sleep 1000 ;;
esac
exec $real \"$@\"
END
             chmod +x /tmp/cut/zfs; test -x /usr/sbin/zfs
             {script}"
        );
        let mut machine = self.machine.take().unwrap();
        let running = machine.start(&Self::command(&wrapper)).await.unwrap();
        if let Err(error) = machine.wait_for_mark("cut", Duration::from_secs(150)).await {
            panic!("{error}\n{:?}", machine.finished(running).await);
        }
        machine.cut_power().await.unwrap();
        self.machine = Some(Machine::boot(&self.config).await.unwrap());
        self.run("zpool import -d /dev/vda1 tank; zpool import -d /dev/vdb1 back")
            .await;
    }

    /// The guids of snapshots, oldest first.
    pub(crate) async fn guids(&mut self, dataset: &str) -> Vec<String> {
        let list = format!("zfs list -Hp -t snapshot -s createtxg -o guid {dataset}");
        self.run(&list).await.lines().map(str::to_owned).collect()
    }

    pub(crate) async fn end(self) {
        self.machine.unwrap().cut_power().await.unwrap();
    }
}
