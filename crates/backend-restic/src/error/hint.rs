//! What an operator can do about each kind: one sentence, with the command to run where there is one.

use super::EngineError;

impl EngineError {
    /// What an operator can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoRepository { .. } => {
                "check the repository path; only where there never was a repository, create one with `reseed init`"
            }
            Self::AlreadyExists { .. } => "open it instead; init never touches an existing repository",
            Self::PathIsFile { .. } => "the repository must be a directory: correct the path",
            Self::WrongPassword { .. } => "check the password file; `restic key list` shows which keys exist",
            Self::MissingKey { .. } => {
                "restore the keys/ directory from a copy: without a key the data cannot be read"
            }
            Self::SnapshotsMissing { .. } => {
                "copy the snapshots/ directory back, or let `restic recover` find what there is; a first backup that was cut off has to be run to its end; if all snapshots were removed on purpose, run `restic prune`"
            }
            Self::NewerVersion { .. } => "use the restic binary for this repository, or upgrade",
            Self::Locked { .. } => {
                "wait for the other run to end; if it is dead, `restic unlock` removes its lock"
            }
            Self::BadLock { .. } => crate::lock::UNREADABLE_LOCK_HINT,
            Self::Busy { .. } => "wait for the other run to end",
            Self::LockLost { .. } => "run again; check the clock and the connection to the repository",
            Self::Unreadable { .. } | Self::Config { .. } => {
                "it is damaged, cut off or missing: run `restic check --read-data`; other sources and older points are tried"
            }
            Self::Denied { .. } => "give the user that runs this access to the repository",
            Self::PasswordFile { .. } => {
                "put the password there, readable by the user that runs this; without it the data cannot be read"
            }
            Self::CredentialsFile { .. } => {
                "it is an AWS credentials file: a line `[default]`, then `aws_access_key_id = …` and `aws_secret_access_key = …`, readable by the user that runs this"
            }
            Self::Login { .. } => {
                "compare `server_user` and the password in `server_password_file` with the server's"
            }
            Self::Credentials { .. } => {
                "compare the key's id and secret in `credentials_file` with the store's; the key may have been deleted"
            }
            Self::CredentialsExpired { .. } => "write fresh ones into `credentials_file`, then run again",
            Self::ClockSkew { .. } => {
                "set this machine's clock: `timedatectl` shows whether it is kept by NTP"
            }
            Self::NoBucket { .. } => {
                "check the bucket's name and the endpoint; reseed makes no buckets, create it with the store's own tools"
            }
            Self::WrongRegion { .. } => {
                "set `region` to the bucket's, which the store often names in its answer"
            }
            Self::WrongEndpoint { .. } => {
                "check the endpoint in `repository`: host, port, and whether it is https or http"
            }
            Self::Untrusted { .. } => {
                "add the authority that signed it to the system's (NixOS: `security.pki.certificateFiles`), or name its file in SSL_CERT_FILE; an expired one, or a wrong clock (`timedatectl`), looks like this too"
            }
            Self::PlainHttp { .. } => {
                "use https; inside a network that is trusted, `allow_http = true` permits it"
            }
            Self::NoSuchHost { .. } => {
                "check the endpoint's name and this machine's DNS: `getent hosts NAME`"
            }
            Self::Refused { .. } => "check that the store runs, and the endpoint's host and port",
            Self::Unreachable { .. } => "check the network and the store's own status, then run again",
            Self::Store { .. } => "check that the repository's storage is reachable, then run again",
            Self::NoSpace { .. } => {
                "free space or raise the quota, then run again: it continues where it stopped"
            }
            Self::ReadOnly { .. } => "remount it writable, or choose another place",
            Self::Source { .. } => "check that the dataset is mounted and the path is right",
            Self::NoSnapshot { .. } => "`reseed status` lists what there is",
            // Also said of a whole chain, of which this repository is only the last to be asked.
            Self::EmptyResult { .. } => {
                "check the path, which is relative to the service's directory, or choose another point with --at"
            }
            Self::CorruptPack { .. } => {
                "run `restic check --read-data`; other sources and older points are tried"
            }
            Self::MissingBlob { .. } => "run `restic rebuild-index`, then `restic check`",
            Self::UnsafeName { .. } => {
                "the snapshot was not written by a well-behaved program: do not trust it"
            }
            Self::TargetConflict { .. } => "restore into an empty directory",
            Self::Target { .. } => "check permissions and the health of the target file system",
            Self::Worker { .. } => {
                "run again; if it persists, as with more files than the worker's 1 GiB is enough for, write `type = \"restic\"` for the repository: the program reads the same"
            }
            Self::Panicked { .. } => {
                "the repository may be damaged: run `restic check --read-data`; other sources are tried"
            }
            Self::ToolMissing { .. } => "install restic 0.14 or newer, or choose the embedded engine",
            Self::Tool { .. } | Self::ToolDied { .. } => {
                "run it again; if it persists, run the same with restic itself to see all that it says"
            }
            Self::BadOutput { .. } => "its version may not be known here: see `restic version`",
            Self::Cancelled | Self::Invalid { .. } => return None,
        })
    }
}
