//! An sshd of a test's own, by which the machine is another one to itself.

use std::fs;
use std::path::PathBuf;

use crate::zfs_lab::{ZfsLab, sure};

/// Nobody else listens there in a machine that is made for tests.
const PORT: u16 = 2222;

/// An sshd on this machine's own address; what a configuration says of it.
pub(crate) struct Sshd {
    pid: PathBuf,
    pub(crate) ssh: String,
}

impl Sshd {
    pub(crate) fn start(lab: &ZfsLab) -> Self {
        let dir = lab.root.join("ssh");
        fs::create_dir(&dir).unwrap();
        let at = dir.to_str().unwrap();
        for key in ["host", "user"] {
            let file = format!("{at}/{key}");
            sure(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &file]);
        }
        let public = fs::read_to_string(dir.join("host.pub")).unwrap();
        fs::write(dir.join("known"), format!("[127.0.0.1]:{PORT} {public}")).unwrap();
        let config = format!(
            "ListenAddress 127.0.0.1:{PORT}\nHostKey {at}/host\nAuthorizedKeysFile {at}/user.pub\nPidFile {at}/pid\nUsePAM no\n\
             StrictModes no\nKexAlgorithms curve25519-sha256\nUseDNS no\nPermitRootLogin yes\n"
        );
        fs::write(dir.join("config"), config).unwrap();
        fs::create_dir_all("/run/sshd").unwrap();
        sure(&["ip", "link", "set", "lo", "up"]);
        sure(&["/usr/sbin/sshd", "-f", &format!("{at}/config")]);
        Self {
            pid: dir.join("pid"),
            ssh: format!(
                "ssh = {{ host = \"127.0.0.1\", port = {PORT}, user = \"root\", key_file = \"{at}/user\", known_hosts = \"{at}/known\" }}"
            ),
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        if let Ok(pid) = fs::read_to_string(&self.pid) {
            sure(&["kill", pid.trim()]);
        }
    }
}
