//! Streams from one dataset to another: resume tokens, and what a resumed stream leaves behind. What is sent is the
//! caller's to decide.
//!
//! A resumed stream brings the snapshot's data and not its properties (OpenZFS 2.3.2), so ours are written afterwards.

use reseed_core::Context;
use reseed_core::error::{Effect, Error};
use reseed_core::names::{DatasetName, Guid, SnapshotName};

use super::error::{self, FromFault};
use super::parse::BadOutput;
use super::tool::{Tool, not_understood};
use super::{argv, parse, space};

/// What an interrupted stream was of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// The snapshot that it brings.
    pub(crate) to: Guid,
    /// What that was called in full when the stream was begun.
    pub(crate) of: Option<String>,
    /// What has arrived of it.
    pub(crate) bytes: u64,
}

/// Reads `zfs send -nvPt`: `toguid = 0x770f…`, `bytes = 0x8919b0`.
pub(crate) fn parse_token(output: &str) -> Result<Token, BadOutput> {
    let value = |key: &str| {
        output
            .lines()
            .filter_map(|line| line.trim().split_once(" = "))
            .find(|(name, _)| *name == key)
            .and_then(|(_, value)| u64::from_str_radix(value.strip_prefix("0x")?, 16).ok())
    };
    match value("toguid") {
        Some(to) => Ok(Token {
            to: Guid(to),
            of: named(output),
            bytes: value("bytes").unwrap_or(0),
        }),
        None => Err(BadOutput("it names no toguid".to_owned())),
    }
}

/// What `zfs send -nvt` says of a token that no stream can be made of (lib/libzfs/libzfs_sendrecv.c, 2.1 to 2.3).
const USELESS: &[&str] = &[
    "no longer exists",
    "no longer the same snapshot",
    "resume token is corrupt",
    "unsupported version",
    "unsupported feature",
];

/// A token that no stream can be made of any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Useless {
    /// The snapshot that it was of, in full, as far as `zfs` tells that.
    pub(crate) of: Option<String>,
}

/// The snapshot that a token names, whether or not it is there: `toname = tank/a@one`.
fn named(output: &str) -> Option<String> {
    output
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("toname = "))
        .map(str::to_owned)
}

/// What a token is of, as far as the sending side can still make it: none when it can't (the snapshot is gone, or the
/// token is of another version).
pub(crate) async fn decode<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    token: &str,
) -> Result<Option<Token>, Error<K>> {
    Ok(read_token(tool, cx, token).await?.ok())
}

/// The same, and what a token was of that is of no use any more.
pub(crate) async fn read_token<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    token: &str,
) -> Result<Result<Token, Useless>, Error<K>> {
    let what = "can't read a resume token";
    let output = tool
        .ask(cx, argv::decode_token(token))
        .await
        .map_err(|error| error.into_error(what, Effect::None))?;
    let words = output.stderr.text();
    // 2.3 tells it on standard error, with the size on standard output; both are looked at. What isn't understood is no
    // reason to throw anything away.
    let text = format!("{}\n{words}", output.stdout.text());
    if !output.exit.success() {
        // Only what says that this stream can't be made any more.
        if USELESS.iter().any(|words_of_it| words.contains(words_of_it)) {
            return Ok(Err(Useless { of: named(&text) }));
        }
        return Err(error::said(what, error::classify(&words), &words, Effect::None));
    }
    parse_token(&text)
        .map(Ok)
        .map_err(|bad| not_understood(what, bad))
}

/// Our own properties of a snapshot, as they are to be written on its copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) taken: Option<String>,
    pub(crate) unseeded: bool,
    pub(crate) digest: Option<String>,
}

impl Own {
    pub(crate) fn of(one: &parse::Listed) -> Self {
        Self {
            taken: one.taken.clone(),
            unseeded: one.unseeded,
            digest: one.digest.clone(),
        }
    }

    /// What of this a copy that has `has` lacks, as properties.
    pub(crate) fn missing_of<'a>(&'a self, has: &Self) -> Vec<(&'static str, &'a str)> {
        let mut properties = Vec::new();
        if let Some(taken) = self.taken.as_deref().filter(|_| has.taken != self.taken) {
            properties.push((argv::TAKEN, taken));
        }
        if self.unseeded && !has.unseeded {
            properties.push((argv::UNSEEDED, "on"));
        }
        if let Some(digest) = self.digest.as_deref().filter(|_| has.digest != self.digest) {
            properties.push((argv::DIGEST, digest));
        }
        properties
    }
}

/// Writes on a copy what its original has and it lacks.
pub(crate) async fn carry_over<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    dataset: &DatasetName,
    snapshot: &SnapshotName,
    has: &Own,
    wanted: &Own,
) -> Result<(), Error<K>> {
    let properties = wanted.missing_of(has);
    if properties.is_empty() {
        return Ok(());
    }
    let what = format!("can't write the properties of {dataset}@{snapshot}");
    let args = argv::set_on_snapshot(dataset, snapshot, &properties);
    tool.change(cx, args, what, Effect::Partial).await.map(drop)
}

/// What a replica says of its data's way back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WayBack {
    /// Then it is sent raw, for a plain stream would land in clear text.
    pub(crate) encrypted: bool,
    /// What was written down on it.
    pub(crate) space: space::Wanted,
}

pub(crate) async fn way_back<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    replica: &DatasetName,
) -> Result<WayBack, Error<K>> {
    let what = format!("can't tell whether {replica} is encrypted, and how it is to come back");
    tool.read(cx, argv::get_way_back(replica), &what, parse_way_back)
        .await
}

/// Reads the answer to [`get_way_back`](argv::get_way_back): a line, and then what anybody may have written.
fn parse_way_back(stdout: &[u8]) -> Result<WayBack, BadOutput> {
    let text = parse::text(stdout)?;
    let (encryption, settings) = text
        .strip_suffix('\n')
        .and_then(|text| text.split_once('\n'))
        .ok_or_else(|| BadOutput(format!("not two properties: {}", parse::shown(&text))))?;
    let (encryption, _) = encryption
        .split_once('\t')
        .ok_or_else(|| BadOutput(format!("not an encryption: {}", parse::shown(encryption))))?;
    // What is inherited or came along is of another dataset.
    let own = settings.strip_suffix("\tlocal").unwrap_or_default();
    Ok(WayBack {
        encrypted: is_cipher(encryption),
        space: space::read(own),
    })
}

/// Reads the answer to [`get_key`](argv::get_key): whose key it is, and whether it is loaded.
pub(crate) fn parse_key(stdout: &[u8]) -> Result<(String, String), BadOutput> {
    let text = parse::text(stdout)?;
    match text.lines().collect::<Vec<_>>()[..] {
        [key_of, status] => Ok((key_of.to_owned(), status.to_owned())),
        _ => Err(BadOutput(format!("not two properties: {}", parse::shown(&text)))),
    }
}

/// Whether a value of `encryptionroot` names a dataset.
pub(crate) fn is_root(value: &str) -> bool {
    !matches!(value, "-" | "none" | "")
}

/// Whether a dataset is encrypted and its key isn't loaded, so that nobody can look into it.
pub(crate) async fn is_locked<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    dataset: &DatasetName,
) -> Result<bool, Error<K>> {
    let what = format!("can't tell whether the key of {dataset} is loaded");
    let output = tool.ask(cx, argv::get_keystatus(dataset)).await;
    let output = error::succeeded(output, what, Effect::None)?;
    Ok(output.stdout.text().trim_end() == "unavailable")
}

/// Whether a value of `encryption` names a cipher.
pub(crate) fn is_cipher(value: &str) -> bool {
    !matches!(value, "off" | "-" | "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_is_read_whatever_is_written_on_the_replica() {
        let read = |text: &str| parse_way_back(text.as_bytes());
        let back = read("aes-256-gcm\t-\nquota=5,reservation=7\tlocal\n").unwrap();
        assert!(back.encrypted);
        assert_eq!(back.space.len(), 2);
        for odd in [
            "off\t-\n-\t-\n",
            "off\tdefault\nquota=5\tinherited from tank\n",
            "off\t-\nquota=5\treceived\n",
            "off\t-\nquota=5\nx\tlocal\n",
        ] {
            let back = read(odd).unwrap();
            assert!(!back.encrypted);
            assert_eq!(back.space, space::Wanted::new(), "{odd:?}");
        }
        for bad in ["", "off\t-\n", "off\nnone\tlocal\n", "off\t-\nquota=5\tloc"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_key_is_two_words() {
        let read = |text: &str| parse_key(text.as_bytes());
        let (key_of, status) = read("tank/a b\navailable\n").unwrap();
        assert_eq!((key_of.as_str(), status.as_str()), ("tank/a b", "available"));
        for bad in ["", "-\n", "-\n-\n-\n"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_recorded_token_is_read() {
        let token = parse_token(include_str!("fixtures/token-2.3.2.txt")).unwrap();
        let expected = Token {
            to: Guid(0x770f_8d11_f0dc_e29c),
            of: Some("tank/svc/a@one".to_owned()),
            bytes: 0x0089_19b0,
        };
        assert_eq!(token, expected);
        // What isn't understood is an error, never a token that is of no use.
        for bad in ["", "toguid = 5\n", "toguid = 0xg\n", "resume token is corrupt\n"] {
            assert!(parse_token(bad).is_err(), "{bad:?}");
        }
        let recorded = include_str!("fixtures/token-2.3.2.txt");
        assert_eq!(named(recorded).as_deref(), Some("tank/svc/a@one"));
        let spaced = recorded.replace("tank/svc/a@one", "tank/a b@x y");
        assert_eq!(named(&spaced).as_deref(), Some("tank/a b@x y"));
        assert_eq!(named("resume token is corrupt\n"), None);
    }
}
