//! What can go wrong with an embedded repository, one kind per remedy.
//!
//! Every variant reads as one sentence and carries only owned text, so that it crosses the pipe from the restore
//! worker unchanged. [`EngineError::hint`] says what to do next. It knows nothing about chains, retries or effects:
//! the trait implementations translate it into the core's envelope.

mod hint;
mod panics;

use std::io;

use serde::{Deserialize, Serialize};

use crate::lock::LockHolder;
pub(crate) use panics::{guarded, panicked};

/// Result of an engine operation.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

/// Why an operation on an embedded repository failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EngineError {
    /// Nothing is there.
    #[error("no repository at {location}")]
    NoRepository {
        /// Where it was looked for.
        location: String,
    },
    /// `init` found something already there.
    #[error("a repository already exists at {location}")]
    AlreadyExists {
        /// Where it is.
        location: String,
    },
    /// The repository path names a file.
    #[error("the repository path {path} is a file, not a directory")]
    PathIsFile {
        /// The path.
        path: String,
    },
    /// No key file opens with the password.
    #[error("wrong password for the repository at {location}")]
    WrongPassword {
        /// Which repository.
        location: String,
    },
    /// There is a configuration but no key file at all.
    #[error("the repository at {location} has no key file")]
    MissingKey {
        /// Which repository.
        location: String,
    },
    /// There is data and no snapshot at all.
    #[error("the repository at {location} has no snapshot, although its index lists data")]
    SnapshotsMissing {
        /// Which repository.
        location: String,
    },
    /// The repository's format is newer than what this engine reads.
    #[error("the repository at {location} has a format this version does not know: {detail}")]
    NewerVersion {
        /// Which repository.
        location: String,
        /// What was found.
        detail: String,
    },
    /// Somebody holds an exclusive lock.
    #[error("the repository is locked by {holder}")]
    Locked {
        /// Who, where and since when.
        holder: LockHolder,
    },
    /// Among the locks is one that can't be read, and restic works past none such (since 0.15).
    #[error("lock {id} of the repository cannot be read: {detail}")]
    BadLock {
        /// The beginning of its id.
        id: String,
        /// restic's own words.
        detail: String,
    },
    /// Our own lock could not be kept alive, so writing on would not be safe.
    #[error("the repository lock was lost: {detail}")]
    LockLost {
        /// Why.
        detail: String,
    },
    /// Another run of ours is at the same.
    #[error("{detail}")]
    Busy {
        /// At what.
        detail: String,
    },
    /// Part of the repository is there but cannot be read or makes no sense.
    #[error("cannot read {what}: {detail}")]
    Unreadable {
        /// Which part.
        what: String,
        /// The store's or the parser's own words.
        detail: String,
    },
    /// The repository's configuration is there, but restic cannot read it. Nothing has been done then.
    #[error("cannot read the configuration of the repository at {location}: {detail}")]
    Config {
        /// Which repository.
        location: String,
        /// restic's own words.
        detail: String,
    },
    /// The system or the store does not let us in.
    #[error("no permission for {what}: {detail}")]
    Denied {
        /// Which part.
        what: String,
        /// The store's own words.
        detail: String,
    },
    /// The file with the repository's password cannot be read.
    #[error("cannot read the password file {path}: {detail}")]
    PasswordFile {
        /// The file.
        path: String,
        /// Why not.
        detail: String,
    },
    /// The file with the store's credentials cannot be read, or does not hold them.
    #[error("cannot read the credentials in {path}: {detail}")]
    CredentialsFile {
        /// The file.
        path: String,
        /// Why not. Never what is in it.
        detail: String,
    },
    /// The server does not know the user, or the password is another.
    #[error("the server does not let the user in at {location}: {detail}")]
    Login {
        /// Which repository.
        location: String,
        /// The server's own words.
        detail: String,
    },
    /// The store does not know the credentials, or the secret is wrong.
    #[error("the store does not accept the credentials for {location}: {detail}")]
    Credentials {
        /// Which repository.
        location: String,
        /// The store's own words.
        detail: String,
    },
    /// The credentials were for a time that is over.
    #[error("the credentials for {location} have expired: {detail}")]
    CredentialsExpired {
        /// Which repository.
        location: String,
        /// The store's own words.
        detail: String,
    },
    /// This machine's clock and the store's differ too much for signatures.
    #[error("the store at {location} refuses this machine's time: {detail}")]
    ClockSkew {
        /// Which repository.
        location: String,
        /// The store's own words.
        detail: String,
    },
    /// The store answers, and has no such bucket.
    #[error("there is no bucket for {location}: {detail}")]
    NoBucket {
        /// Which repository.
        location: String,
        /// The store's own words.
        detail: String,
    },
    /// The bucket is in another region than requests are signed for.
    #[error("the region for {location} is wrong: {detail}")]
    WrongRegion {
        /// Which repository.
        location: String,
        /// The store's own words.
        detail: String,
    },
    /// Something answers there that is no such store, or not in a way that can be trusted.
    #[error("what answers at {location} is no store that can be talked to: {detail}")]
    WrongEndpoint {
        /// Which repository.
        location: String,
        /// What it said.
        detail: String,
    },
    /// Who answers there has a certificate that this machine doesn't trust.
    #[error("the certificate of {location} is not trusted here: {detail}")]
    Untrusted {
        /// Which repository.
        location: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The address would be talked to without encryption, and nobody said that it may.
    #[error("{location} is reached by plain http, and that is not allowed")]
    PlainHttp {
        /// Which repository.
        location: String,
    },
    /// The endpoint's name leads nowhere.
    #[error("the host of {location} is not known: {detail}")]
    NoSuchHost {
        /// Which repository.
        location: String,
        /// The resolver's own words.
        detail: String,
    },
    /// Nothing listens at the endpoint.
    #[error("nothing listens at {location}: {detail}")]
    Refused {
        /// Which repository.
        location: String,
        /// The system's own words.
        detail: String,
    },
    /// The store did not answer, not to the end, or only that it can't now.
    #[error("the store at {location} does not answer as it should: {detail}")]
    Unreachable {
        /// Which repository.
        location: String,
        /// What was said.
        detail: String,
    },
    /// The store refused or failed an operation.
    #[error("the store failed to {action}: {detail}")]
    Store {
        /// What was attempted.
        action: String,
        /// The store's own words.
        detail: String,
    },
    /// No space left where something had to be written.
    #[error("no space left while writing {path}")]
    NoSpace {
        /// What was being written.
        path: String,
    },
    /// The place to write to is read-only.
    #[error("cannot write {path}: the file system is read-only")]
    ReadOnly {
        /// What was being written.
        path: String,
    },
    /// The directory to back up is not there or not a directory.
    #[error("cannot back up {path}: {detail}")]
    Source {
        /// The directory.
        path: String,
        /// Why not.
        detail: String,
    },
    /// No snapshot has that id.
    #[error("no snapshot {id} in the repository")]
    NoSnapshot {
        /// What was asked for.
        id: String,
    },
    /// The request selects nothing, which is never what somebody who restores wants.
    #[error("nothing to restore: {what}")]
    EmptyResult {
        /// What selected nothing.
        what: String,
    },
    /// A pack is damaged, short or missing.
    #[error("pack {pack} is damaged: {detail}; affected: {}", affected(.files, *.more))]
    CorruptPack {
        /// The pack's id.
        pack: String,
        /// What is wrong with it.
        detail: String,
        /// Files that need it, the first few.
        files: Vec<String>,
        /// How many more files need it.
        more: u64,
    },
    /// The index does not know a blob that a snapshot needs.
    #[error("{what} {blob} is not in the index, needed for {path}")]
    MissingBlob {
        /// `data` or `tree`.
        what: String,
        /// The blob's id.
        blob: String,
        /// What needs it.
        path: String,
    },
    /// A name in the snapshot would leave the target directory, or cannot exist on a file system.
    #[error("refusing the name {name:?} in {parent:?}: {detail}")]
    UnsafeName {
        /// The directory in the snapshot.
        parent: String,
        /// The name.
        name: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Something stands in the target where the snapshot has something else.
    #[error("cannot restore {path}: {detail}")]
    TargetConflict {
        /// The path below the target.
        path: String,
        /// What stands there.
        detail: String,
    },
    /// An operation in the target failed.
    #[error("cannot {action} {path}: {detail}")]
    Target {
        /// What was attempted.
        action: String,
        /// The path below the target.
        path: String,
        /// The system's own words.
        detail: String,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The restore worker died or talked nonsense.
    #[error("the restore worker failed: {detail}")]
    Worker {
        /// How it ended.
        detail: String,
    },
    /// A program that is needed is not there, or too old.
    #[error("{detail}")]
    ToolMissing {
        /// Which, and why it does not do.
        detail: String,
    },
    /// A program failed in a way that has no kind of its own.
    #[error("restic failed with {exit}: {detail}")]
    Tool {
        /// How it ended.
        exit: String,
        /// Its own words.
        detail: String,
    },
    /// A program was killed, or did not end.
    #[error("restic did not end by itself ({exit}): {detail}")]
    ToolDied {
        /// How it ended.
        exit: String,
        /// Its own words.
        detail: String,
    },
    /// A program's answer makes no sense.
    #[error("restic's answer is not understood: {detail}")]
    BadOutput {
        /// What is wrong with it.
        detail: String,
    },
    /// A defect in a library, caught at its border.
    #[error("internal failure during {during}: {detail}")]
    Panicked {
        /// The operation.
        during: String,
        /// The panic's message.
        detail: String,
    },
    /// The request makes no sense.
    #[error("invalid request: {detail}")]
    Invalid {
        /// Why.
        detail: String,
    },
}

fn affected(files: &[String], more: u64) -> String {
    // A file's name may hold line ends and escapes, which must not reach a log or a terminal.
    let shown = |name: &String| {
        name.chars()
            .any(char::is_control)
            .then(|| name.escape_debug().to_string())
    };
    let shown = |name: &String| shown(name).unwrap_or_else(|| name.clone());
    let mut text = if files.is_empty() {
        "unknown files".to_owned()
    } else {
        files.iter().map(shown).collect::<Vec<_>>().join(", ")
    };
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

impl EngineError {
    /// Whether it is about the store as a whole or the way to it, and not about what was asked of it.
    pub(crate) fn is_of_the_store(&self) -> bool {
        matches!(
            self,
            Self::Store { .. }
                | Self::CredentialsFile { .. }
                | Self::Login { .. }
                | Self::Credentials { .. }
                | Self::CredentialsExpired { .. }
                | Self::ClockSkew { .. }
                | Self::NoBucket { .. }
                | Self::WrongRegion { .. }
                | Self::WrongEndpoint { .. }
                | Self::Untrusted { .. }
                | Self::PlainHttp { .. }
                | Self::NoSuchHost { .. }
                | Self::Refused { .. }
                | Self::Unreachable { .. }
        )
    }

    /// Whether it is about this run or the program that it used, and says nothing about what is in the repository.
    pub(crate) fn is_of_the_run(&self) -> bool {
        matches!(
            self,
            Self::Cancelled | Self::Tool { .. } | Self::ToolDied { .. } | Self::BadOutput { .. }
        )
    }

    /// Whether the same request may well be answered in a moment.
    pub(crate) fn passes(&self) -> bool {
        matches!(
            self,
            Self::NoSuchHost { .. } | Self::Refused { .. } | Self::Unreachable { .. }
        )
    }

    /// Sorts an I/O error of the target into the kinds that have a remedy of their own.
    pub(crate) fn target(action: &str, path: &std::path::Path, error: &io::Error) -> Self {
        let path = path.display().to_string();
        match classify(error) {
            IoClass::NoSpace => Self::NoSpace { path },
            IoClass::ReadOnly => Self::ReadOnly { path },
            IoClass::Other => Self::Target {
                action: action.to_owned(),
                path,
                detail: error.to_string(),
            },
        }
    }
}

/// The classes of I/O error that an operator mends differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IoClass {
    NoSpace,
    ReadOnly,
    Other,
}

pub(crate) fn classify(error: &io::Error) -> IoClass {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => IoClass::NoSpace,
        io::ErrorKind::ReadOnlyFilesystem => IoClass::ReadOnly,
        _ => IoClass::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_full_quota_are_the_same_kind() {
        for raw in [28, 122] {
            let error = io::Error::from_raw_os_error(raw);
            assert!(matches!(
                EngineError::target("write", std::path::Path::new("a"), &error),
                EngineError::NoSpace { .. }
            ));
        }
    }

    #[test]
    fn a_corrupt_pack_names_its_files() {
        let error = EngineError::CorruptPack {
            pack: "ab12".into(),
            detail: "blob 7 does not decrypt".into(),
            files: vec!["a/b".into(), "c\nd".into()],
            more: 2,
        };
        assert_eq!(
            error.to_string(),
            "pack ab12 is damaged: blob 7 does not decrypt; affected: a/b, c\\nd and 2 more"
        );
        assert!(error.hint().is_some());
    }

    #[test]
    fn errors_cross_the_pipe_unchanged() {
        let error = EngineError::NoSpace {
            path: "x\n\"y".into(),
        };
        let line = serde_json::to_string(&error).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<EngineError>(&line).unwrap(), error);
    }
}
