//! How restic ended, as a kind of error. Pure.
//!
//! From 0.17 on the exit code tells some kinds; before, it is 1 for all of them, and the words decide. The words decide also where
//! a code says less than they do. Whatever isn't known here is a failure, and never taken for "there is nothing".

use reseed_core::exec::Exit;

use super::lock_words::{holder, of_lock};
use super::parse::Problem;
use crate::error::EngineError;
use crate::words::plain;

/// Says why a call failed.
///
/// `words` is all that it said on its standard error, as text.
pub(crate) fn of(exit: Exit, words: &str, location: &str) -> EngineError {
    // What it asked again for it may have been given; and what it wasn't is told at the end.
    let stays = |line: &&str| !line.contains("returned error, retrying after") || lasts(line);
    let stayed: Vec<&str> = words.lines().filter(stays).collect();
    judged(exit, words, &stayed.join("\n"), location)
}

/// The same, by all words and by those that tell of what didn't pass.
fn judged(exit: Exit, words: &str, stayed: &str, location: &str) -> EngineError {
    let has = |needle: &str| words.contains(needle);
    let any = |needles: &[&str]| needles.iter().any(|needle| words.contains(needle));
    let place = || location.to_owned();
    let code = exit.code();
    if way_is_lost(words) {
        return EngineError::Unreachable {
            location: place(),
            detail: said(words),
        };
    }
    if has("repository is already locked") || code == Some(11) {
        return EngineError::Locked {
            holder: holder(words),
        };
    }
    // Where the password is "wrong", that word is not shown.
    if has("password or no key found") || code == Some(12) {
        return EngineError::WrongPassword { location: place() };
    }
    if has("unsupported repository version") || has("unsupported version") {
        return EngineError::NewerVersion {
            location: place(),
            detail: said(words),
        };
    }
    if has("config file already exists") {
        return EngineError::AlreadyExists { location: place() };
    }
    let nothing_there = any(&[
        "no such file or directory",
        "does not exist",
        "The specified key does not exist",
        "404 Not Found",
    ]);
    if any(&["no matching ID found", "no snapshot found", "no snapshots found"]) {
        return EngineError::NoSnapshot { id: quoted(words) };
    }
    // Asked for by its whole id, 0.18 doesn't list the snapshots but opens the file.
    if has("failed to find snapshot") && nothing_there {
        return EngineError::NoSnapshot { id: quoted(words) };
    }
    if has("unable to start the sftp session") {
        return of_ssh(words, location);
    }
    if has("config cannot be loaded") {
        // It says so for whatever reason.
        if let Some(why) = out_of_reach(words) {
            return EngineError::Unreachable {
                location: place(),
                detail: plain(why),
            };
        }
        if any(&DENIED) {
            return EngineError::Denied {
                what: place(),
                detail: said(words),
            };
        }
        return EngineError::Config {
            location: place(),
            detail: said(words),
        };
    }
    if let Some(error) = of_s3(words, location) {
        return error;
    }
    if code == Some(10) || (has("unable to open config file") && nothing_there) {
        return EngineError::NoRepository { location: place() };
    }
    if let Some(error) = of_target(words) {
        return error;
    }
    if let Some(error) = of_lock(words) {
        return error;
    }
    if is_damage(stayed) {
        return EngineError::Unreadable {
            what: format!("the repository at {location}"),
            detail: said(words),
        };
    }
    if any(&DENIED) {
        return EngineError::Denied {
            what: place(),
            detail: said(words),
        };
    }
    if words.contains("x509:") {
        return EngineError::Untrusted {
            location: location.to_owned(),
            detail: said(words),
        };
    }
    let network = [
        "dial tcp",
        "no such host",
        "connection refused",
        "connection reset",
        "network is unreachable",
        "i/o timeout",
        "TLS handshake",
        "Host key verification failed",
        "Please reduce your request rate",
        "internal error",
        "server response unexpected",
        "too many levels of symbolic links",
        "input/output error",
        "stale NFS file handle",
        "stale file handle",
    ];
    if any(&network) {
        return EngineError::Store {
            action: format!("answer for {location}"),
            detail: said(words),
        };
    }
    match exit {
        Exit::Signal(_) => EngineError::ToolDied {
            exit: exit.to_string(),
            detail: said(words),
        },
        Exit::Code(_) => EngineError::Tool {
            exit: exit.to_string(),
            detail: said(words),
        },
    }
}

/// What ssh says when there is no connection: restic passes it on, with words of its own that sound like damage.
fn of_ssh(words: &str, location: &str) -> EngineError {
    let (place, detail) = (location.to_owned(), said(words));
    let has = |needle: &str| words.contains(needle);
    if has("subsystem request failed") {
        EngineError::Invalid {
            detail: format!("{place} offers no sftp: {detail}"),
        }
    } else if has("Permission denied")
        || has("Host key verification failed")
        || has("Too many authentication failures")
    {
        EngineError::Denied { what: place, detail }
    } else if has("Could not resolve hostname") {
        EngineError::NoSuchHost {
            location: place,
            detail,
        }
    } else if has("Connection refused") {
        EngineError::Refused {
            location: place,
            detail,
        }
    } else {
        EngineError::Unreachable {
            location: place,
            detail,
        }
    }
}

/// What S3 stores say: restic passes on their messages without the codes. Those of AWS, B2, Garage, MinIO and Ceph are known here.
fn of_s3(words: &str, location: &str) -> Option<EngineError> {
    let lower = words.to_lowercase();
    let any = |needles: &[&str]| needles.iter().any(|needle| lower.contains(needle));
    let (location, detail) = (location.to_owned(), said(words));
    Some(
        if any(&[
            "specified bucket does not exist",
            "bucket not found",
            "nosuchbucket",
        ]) {
            EngineError::NoBucket { location, detail }
        } else if any(&[
            "request signature we calculated does not match",
            "access key id you provided does not exist",
            "no such access key",
            "invalid signature",
        ]) {
            EngineError::Credentials { location, detail }
        } else if any(&["token has expired", "token provided has expired", "expiredtoken"]) {
            EngineError::CredentialsExpired { location, detail }
        } else if any(&[
            "difference between the request time and",
            "requesttimetooskewed",
            "date is too old",
        ]) {
            EngineError::ClockSkew { location, detail }
        } else if any(&[
            "authorization header is malformed",
            "must be addressed using the specified endpoint",
        ]) {
            EngineError::WrongRegion { location, detail }
        } else if any(&[
            "quota is reached",
            "quota exceeded",
            "quotaexceeded",
            "cap exceeded",
            "no space left",
            "minimum free drive threshold",
            "minimum free disk threshold",
        ]) {
            EngineError::NoSpace { path: detail }
        } else {
            return None;
        },
    )
}

/// Whether ssh has died under it. It doesn't start another one: 0.14 asks the dead one again for a minute and a half, 0.18
/// gives up at once, and both then say of all that they couldn't read that it is damaged or doesn't exist.
pub(crate) fn way_is_lost(words: &str) -> bool {
    let lost = |line: &str| {
        line.contains("ssh command exited")
            // Not a connection of HTTP, which it makes anew.
            || (line.trim_end().ends_with(": connection lost") && !line.contains("http2"))
    };
    words.lines().any(lost)
}

/// What it says of a store that it did not reach, when it gave up asking again. What is between quotation marks is a URL, or the name of a file.
pub(crate) fn out_of_reach(words: &str) -> Option<&str> {
    let said = |line: &str| line.split('"').step_by(2).collect::<String>();
    words
        .lines()
        .filter(|line| !line.contains("returned error, retrying after") && !line.contains("(<lock/"))
        .find(|line| {
            let said = said(line);
            UNREACHED.iter().any(|word| said.contains(word))
        })
}

/// Words of what may not be done.
const DENIED: [&str; 6] = [
    "permission denied",
    "Permission denied",
    "Access Denied",
    "AccessDenied",
    "403 Forbidden",
    "401 Unauthorized",
];

/// Words of Go's network and HTTP, as they are below each request of restic's.
const UNREACHED: [&str; 11] = [
    "dial tcp",
    "no such host",
    "connection refused",
    "connection reset",
    "client connection lost",
    "network is unreachable",
    "no route to host",
    "i/o timeout",
    "net/http: timeout",
    "TLS handshake",
    "unexpected HTTP response (5",
];

/// Whether restic asks again for nothing: what it is told then stays so until somebody mends it.
pub(crate) fn lasts(words: &str) -> bool {
    let gone = words.contains("Load(<")
        && ["specified key does not exist", "range is not satisfiable"]
            .iter()
            .any(|word| words.contains(word));
    // A certificate that isn't trusted; what else is wrong with an address restic doesn't ask again for.
    gone || way_is_lost(words)
        || words.contains("x509:")
        || matches!(
            judged(Exit::Code(1), words, words, ""),
            EngineError::NoBucket { .. }
                | EngineError::Credentials { .. }
                | EngineError::CredentialsExpired { .. }
                | EngineError::ClockSkew { .. }
                | EngineError::WrongRegion { .. }
                | EngineError::NoSpace { .. }
                | EngineError::ReadOnly { .. }
                | EngineError::Denied { .. }
        )
}

/// Errors of what is written to, which mends differently than what is read.
fn of_target(words: &str) -> Option<EngineError> {
    let path = || said(words);
    if words.contains("no space left on device") || words.contains("disk quota exceeded") {
        return Some(EngineError::NoSpace { path: path() });
    }
    if words.contains("read-only file system") {
        return Some(EngineError::ReadOnly { path: path() });
    }
    None
}

/// Words of data that is there and is not what it should be, or is not there and should be.
pub(crate) fn is_damage(words: &str) -> bool {
    let lost = (words.contains("no such file or directory")
        || words.contains("specified key does not exist"))
        && [
            "StreamPack",
            "LoadBlob",
            "LoadRaw",
            "loading",
            "Load(<",
            "ReadFull(<",
        ]
        .iter()
        .any(|by| words.contains(by));
    lost || [
        "ciphertext verification failed",
        "invalid data returned",
        "unexpected EOF",
        "not found in repository",
        "not found in index",
        "blob not found",
        "unexpected pack",
        "does not match",
        "wrong data returned",
        "wrong hash",
        "range is not satisfiable",
        "hash mismatch",
        "file does not exist",
        "checking for consistency",
        "invalid ID",
        "decompression failed",
        "decoding",
        "invalid character",
        "size mismatch",
        "too short",
    ]
    .iter()
    .any(|word| words.contains(word))
}

/// What is said of a problem, without the path of what it is about: in a path there may be any words.
fn said_of(problem: &Problem) -> String {
    match problem.item.as_str() {
        "" | "/" => problem.why.clone(),
        item => problem.why.replace(item, ""),
    }
}

/// Words of metadata that could not be set: the content is there all the same. Go says first what it did, and then to which path.
fn is_metadata(problem: &Problem) -> bool {
    let why = said_of(problem);
    let did = why.split('/').next().unwrap_or_default();
    [
        "lchown",
        "chmod",
        "chtimes",
        "UtimesNano",
        "xattr",
        "setxattr",
        "SetFlags",
    ]
    .iter()
    .any(|word| did.contains(word))
        && !why.contains("no such file or directory")
}

/// What a restore's problems come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Only metadata: each as a warning.
    Metadata(Vec<String>),
    /// It failed.
    Failed(EngineError),
}

/// Judges the problems that a restore told: `first` are the first of `count`, `words` all the rest that it said.
pub(crate) fn of_restore(exit: Exit, first: &[Problem], count: u64, words: &str, location: &str) -> Verdict {
    if let Some(error) = first
        .iter()
        .find_map(|problem| of_target(&format!("{}: {}", problem.item, problem.why)))
    {
        return Verdict::Failed(error);
    }
    let mut all_words = first.iter().map(|problem| problem.why.as_str()).chain([words]);
    if let Some(lost) = all_words.find(|words| way_is_lost(words)) {
        return Verdict::Failed(of(exit, lost, location));
    }
    if let Some(problem) = first.iter().find(|problem| is_damage(&said_of(problem))) {
        let more = count.saturating_sub(1);
        let what = match more {
            0 => plain(&problem.item),
            _ => format!("{} and up to {more} more", plain(&problem.item)),
        };
        return Verdict::Failed(EngineError::Unreadable {
            what,
            detail: plain(&problem.why),
        });
    }
    if first.is_empty() {
        return Verdict::Failed(of(exit, words, location));
    }
    // All of them must be known to be harmless; only the first ones are.
    let all = u64::try_from(first.len()).is_ok_and(|known| known == count);
    if all && first.iter().all(is_metadata) && exit.code() == Some(1) {
        let tell = |problem: &Problem| format!("{}: {}", plain(&problem.item), plain(&problem.why));
        return Verdict::Metadata(first.iter().map(tell).collect());
    }
    let said = first.iter().map(said_of).chain([words.to_owned()]);
    let mut said = said.filter_map(|said| out_of_reach(&said).map(plain));
    if let Some(detail) = said.next() {
        let location = location.to_owned();
        return Verdict::Failed(EngineError::Unreachable { location, detail });
    }
    let problem = first
        .iter()
        .find(|problem| !is_metadata(problem))
        .unwrap_or(&first[0]);
    Verdict::Failed(EngineError::Target {
        action: "restore".into(),
        path: plain(&problem.item),
        detail: plain(&problem.why),
    })
}

/// What it said, on one line; without what says nothing.
fn said(words: &str) -> String {
    let noise = |line: &&str| {
        let line = line.trim();
        !line.is_empty()
            && !line.starts_with("github.com/")
            && !line.starts_with("main.")
            && !line.starts_with("runtime.")
    };
    let lines: Vec<&str> = words.lines().filter(noise).collect();
    let text = plain(&lines.join(" "));
    if text.is_empty() {
        "it said nothing".to_owned()
    } else {
        text
    }
}

fn quoted(words: &str) -> String {
    words
        .split('"')
        .nth(1)
        .map_or_else(|| "with that id".to_owned(), plain)
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
