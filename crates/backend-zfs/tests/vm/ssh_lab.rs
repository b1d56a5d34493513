//! Two hosts in one machine: this test's network and another one, a cable between them, and an sshd in the other.
//!
//! Pools belong to the kernel, so both "hosts" see all of them; each works on its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reseed_backend_zfs::zfs::{Location, Mapping, NativeReplicator, Ssh};
use reseed_core::names::DatasetName;
use reseed_core::point::Target;
use reseed_testkit::files::Files as _;

use crate::lab::{Pool, bookmarks, name, run, sure};
use crate::source_lab::snapshot;

/// The other host's address.
const THERE: &str = "10.77.0.2";

/// The other host. One a test: each runs in a process of its own.
pub(crate) struct Host {
    net: String,
    dir: PathBuf,
}

impl Host {
    /// A network of the test's own, and a host in another one.
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// The same, with more in its sshd's configuration.
    fn with(more: &str) -> Self {
        let id = std::process::id();
        let (mine, net) = (format!("a{id}"), format!("b{id}"));
        let dir = PathBuf::from(format!("/tmp/ssh{id}"));
        fs::create_dir_all(&dir).unwrap();
        sure(["modprobe", "veth"]);
        for name in [&mine, &net] {
            sure(["ip", "netns", "add", name]);
            sure(["ip", "-n", name, "link", "set", "lo", "up"]);
        }
        sure([
            "ip", "-n", &mine, "link", "add", "cable", "type", "veth", "peer", "name", "plug", "netns", &net,
        ]);
        sure(["ip", "-n", &mine, "addr", "add", "10.77.0.1/24", "dev", "cable"]);
        sure([
            "ip",
            "-n",
            &net,
            "addr",
            "add",
            &format!("{THERE}/24"),
            "dev",
            "plug",
        ]);
        let host = Self { net, dir };
        // What this thread starts from here on is in its network.
        let own = fs::File::open(format!("/run/netns/{mine}")).unwrap();
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&own), kind).unwrap();
        host.cable(true);
        sure(["ip", "-n", &host.net, "link", "set", "plug", "up"]);
        for key in ["host", "other", "user"] {
            host.key(key);
        }
        fs::copy(host.dir.join("user.pub"), host.dir.join("authorized")).unwrap();
        host.pin("host");
        fs::create_dir_all("/run/sshd").unwrap();
        let config = format!(
            "ListenAddress {THERE}\nHostKey {dir}/host\nAuthorizedKeysFile {dir}/authorized\nPidFile {dir}/pid\nUsePAM no\n\
             StrictModes no\nKexAlgorithms curve25519-sha256\nUseDNS no\nPermitRootLogin yes\nClientAliveInterval 1\nClientAliveCountMax 3\n{more}",
            dir = host.dir.display()
        );
        fs::write(host.dir.join("config"), config).unwrap();
        let config = host.dir.join("config");
        sure([
            "ip",
            "netns",
            "exec",
            &host.net,
            "/usr/sbin/sshd",
            "-f",
            config.to_str().unwrap(),
        ]);
        host
    }

    fn key(&self, name: &str) {
        let file = self.dir.join(name);
        sure([
            "ssh-keygen",
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-f",
            file.to_str().unwrap(),
        ]);
    }

    fn known_hosts(&self) -> PathBuf {
        self.dir.join("known hosts")
    }

    /// Pins one of the keys `host` (which the host has) and `other`.
    pub(crate) fn pin(&self, key: &str) {
        let public = fs::read_to_string(self.dir.join(format!("{key}.pub"))).unwrap();
        fs::write(self.known_hosts(), format!("{THERE} {public}")).unwrap();
    }

    /// Plugs the cable in, or pulls it.
    pub(crate) fn cable(&self, up: bool) {
        sure(["ip", "link", "set", "cable", if up { "up" } else { "down" }]);
    }

    /// Bytes that have left through the cable.
    pub(crate) fn sent(&self) -> u64 {
        let found = sure(["ip", "-s", "-j", "link", "show", "cable"]);
        let found: serde_json::Value = serde_json::from_str(&found).unwrap();
        found[0]["stats64"]["tx"]["bytes"].as_u64().unwrap()
    }

    fn pid(&self) -> String {
        fs::read_to_string(self.dir.join("pid"))
            .unwrap()
            .trim()
            .to_owned()
    }

    /// Stops or continues the server that takes connections.
    pub(crate) fn signal(&self, signal: &str) {
        sure(["kill", signal, &self.pid()]);
    }

    /// How it is reached, with 40 s of patience: an emulated machine may need seconds to begin a connection.
    pub(crate) fn location(&self) -> Location {
        self.location_with(Duration::from_secs(40))
    }

    pub(crate) fn location_with(&self, patience: Duration) -> Location {
        self.reached_by(&self.known_hosts(), patience)
    }

    /// The same, with the pinned key in a file without a space in its name.
    pub(crate) fn plain_location(&self) -> Location {
        let plain = self.dir.join("known_hosts");
        fs::copy(self.known_hosts(), &plain).unwrap();
        self.reached_by(&plain, Duration::from_secs(40))
    }

    fn reached_by(&self, known_hosts: &Path, patience: Duration) -> Location {
        let ssh = Ssh::new(format!("root@{THERE}"), known_hosts).unwrap();
        Location::Ssh(ssh.identity(self.dir.join("user")).patience(patience))
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Ok(pid) = fs::read_to_string(self.dir.join("pid")) {
            let _ = run(["kill", "-KILL", pid.trim()]);
        }
    }
}

/// How many processes there are whose command line has these words.
pub(crate) fn processes(words: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).replace('\0', " ").contains(words))
        .count()
}

/// This host with a store, another one with a pool for replicas, and the way between them.
pub(crate) struct Pair {
    pub(crate) host: Host,
    pub(crate) pool: Pool,
    pub(crate) back: Pool,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::with(Host::new())
    }

    /// The other host greets everybody with some lines.
    pub(crate) fn greeted() -> Self {
        let file = "/tmp/greeting";
        fs::write(
            file,
            "*** Authorized use only ***\n\nWhat you do here cannot be undone.\n",
        )
        .unwrap();
        Self::with(Host::with(&format!("Banner {file}\n")))
    }

    fn with(host: Host) -> Self {
        let (pool, back) = (Pool::new(), Pool::new());
        Self { host, pool, back }
    }

    pub(crate) fn mapping(&self) -> Mapping {
        Mapping::below(DatasetName::new(format!("{}/svc", self.back.pool)).unwrap())
    }

    pub(crate) fn push(&self) -> NativeReplicator {
        NativeReplicator::new(
            name("nas"),
            &self.pool.store,
            self.host.location(),
            self.mapping(),
        )
    }

    pub(crate) async fn target(&self, leaf: &str, megabytes: u32) -> Target {
        let target = self.pool.target(leaf);
        sure(["zfs", "create", target.dataset.as_str()]);
        let noise: Vec<u8> = (0..megabytes * 250_000)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        self.pool.files.write(&target.mountpoint.join("noise"), &noise);
        snapshot(&self.pool, &target, "one", 1, true).await;
        target
    }

    /// Names and guids of a dataset's snapshots.
    pub(crate) fn snapshots(dataset: &str) -> String {
        sure([
            "zfs", "list", "-Hp", "-d", "1", "-t", "snapshot", "-o", "guid", dataset,
        ])
    }

    pub(crate) fn replica(&self, target: &Target) -> String {
        format!("{}/svc/{}", self.back.pool, target.dataset)
    }

    pub(crate) fn nothing_was_sent(&self, target: &Target) {
        assert!(!run(["zfs", "list", &self.replica(target)]).exit.success());
        let marks = bookmarks(target.dataset.as_str());
        assert_eq!(marks, "");
    }
}
