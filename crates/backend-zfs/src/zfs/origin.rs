//! Whose a replica is. The property `reseed:origin` says of which host's dataset it is a copy, as `HOST:DATASET`.
//!
//! - What another host sent is refused, not set aside: two hosts that were given one place would otherwise set each other's
//!   copies aside by turns, and be offered each other's data.
//! - Only the replica's own value counts (source `local`): one that it inherits or received is another dataset's. A listing
//!   doesn't tell which it is, so whatever isn't exactly what this host would write there is asked about once more; where all
//!   is as it should be that costs no process.
//! - A replica that says nothing was made by something else, or by reseed before there was this property. It counts as this
//!   host's, and gets the property with the next stream. Between two hosts that share such a replica the first to send wins, and
//!   the other is refused from then on. When it has to be set aside it stays what it is: it is renamed and can still be
//!   restored from.
//! - For what is restored the host decides: after a pool was renamed the dataset is another one. What is sent has to be the
//!   dataset's too: two of one host that were given one place would set each other aside just so. After a renaming somebody says
//!   so with `zfs set`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use reseed_core::Context;
use reseed_core::error::{Error, ReplicateError, ReplicateKind, SourceError, SourceKind};
use reseed_core::names::{DatasetName, SourceName};

use super::error::FromFault;
use super::tool::Tool;
use super::{argv, list, names, parse, rows};

/// The value of the property for a host's dataset: one word without anything that a shell or a list of options would
/// take apart (syncoid puts it into both), so what is neither letter nor digit nor one of `_.-/` and a dataset's `:` is written
/// as `%` and two hexadecimal digits.
pub(crate) fn write(host: &str, dataset: &DatasetName) -> String {
    let mut out = String::new();
    let mut push = |text: &str, plain: &[u8]| {
        for byte in text.bytes() {
            if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
                out.push(char::from(byte));
            } else {
                // Writing to a string doesn't fail.
                let _ = write!(out, "%{byte:02X}");
            }
        }
    };
    push(host, b"_.-");
    push(":", b":");
    push(dataset.as_str(), b"_.-/:");
    out
}

/// The host that a value names. One that was written by something else is its own name: it is nobody's that we know.
fn host_of(value: &str) -> String {
    let host = value.split(':').next().unwrap_or(value);
    let mut bytes = Vec::with_capacity(host.len());
    let mut rest = host.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
        match (first, more) {
            (b'%', [a, b, after @ ..]) => {
                let (Some(a), Some(b)) = (digit(a), digit(b)) else {
                    return value.to_owned();
                };
                bytes.push(a * 16 + b);
                rest = after;
            }
            (b'%', _) => return value.to_owned(),
            _ => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    match String::from_utf8(bytes) {
        Ok(host) if value.contains(':') => host,
        _ => value.to_owned(),
    }
}

/// A replica as a listing tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Of which dataset it should be.
    pub(crate) of: DatasetName,
    pub(crate) replica: DatasetName,
    /// The property's value, wherever it comes from; where it holds a tab or a newline, perhaps another one that is nobody's.
    pub(crate) value: Option<String>,
}

/// Whose replicas are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Whoever's they are.
    Anybodys,
    /// This machine's, which is called so, and those that say nothing.
    Ours(String),
    /// Those that say that they are this other host's. One that says nothing may well be ours.
    Theirs(String),
}

impl Whose {
    fn host(&self) -> Option<&str> {
        match self {
            Self::Anybodys => None,
            Self::Ours(host) | Self::Theirs(host) => Some(host),
        }
    }

    /// What a listing settles by itself: it is wanted.
    fn surely(&self, of: &DatasetName, value: Option<&str>) -> bool {
        match self {
            Self::Anybodys => true,
            Self::Ours(host) => value.is_none_or(|value| value == write(host, of)),
            Self::Theirs(_) => false,
        }
    }

    /// Whether one is wanted that says by a property of its own that it is this host's; none says nothing.
    fn takes(&self, owner: Option<&str>) -> bool {
        match self {
            Self::Anybodys => true,
            Self::Ours(host) => owner.is_none_or(|owner| owner == host),
            Self::Theirs(host) => owner == Some(host),
        }
    }
}

/// The hosts that these datasets say they are of, each by a property of its own. Those that say nothing aren't in it.
async fn owners<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    datasets: &BTreeSet<&DatasetName>,
) -> Result<BTreeMap<DatasetName, String>, Error<K>> {
    let own = own_values(tool, cx, datasets).await?;
    Ok(own
        .into_iter()
        .map(|(name, value)| (name, host_of(&value)))
        .collect())
}

/// What these datasets say by a property of their own.
async fn own_values<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    datasets: &BTreeSet<&DatasetName>,
) -> Result<BTreeMap<DatasetName, String>, Error<K>> {
    if datasets.is_empty() {
        return Ok(BTreeMap::new());
    }
    let what = "can't tell whose replicas these are";
    let nonce = rows::nonce();
    let args = argv::get_origins(datasets.iter().copied(), nonce);
    let found = tool
        .read::<K, _>(cx, args, what, |stdout| parse::own_origins(stdout, nonce))
        .await?;
    Ok(found.into_iter().collect())
}

/// One that isn't wanted, and the host that it says it is of.
type Other = (Seen, Option<String>);

/// Which of these are wanted, and the hosts (or nobody) that the others are of.
async fn sorted<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    whose: &Whose,
    all: Vec<Seen>,
) -> Result<(Vec<DatasetName>, Vec<Other>), Error<K>> {
    let unsettled = all
        .iter()
        .filter(|seen| !whose.surely(&seen.of, seen.value.as_deref()))
        .map(|seen| &seen.replica);
    let owners = owners::<K>(tool, cx, &unsettled.collect()).await?;
    let (mut wanted, mut others) = (Vec::new(), Vec::new());
    for seen in all {
        let owner = owners.get(&seen.replica);
        if whose.surely(&seen.of, seen.value.as_deref()) || whose.takes(owner.map(String::as_str)) {
            wanted.push(seen.replica);
        } else {
            others.push((seen, owner.cloned()));
        }
    }
    Ok((wanted, others))
}

/// Refuses to send to replicas of which one is another host's, or another dataset's of this host.
pub(crate) async fn require_ours(
    tool: &Tool,
    cx: &Context,
    host: &str,
    all: Vec<Seen>,
) -> Result<(), ReplicateError> {
    let whose = Whose::Ours(host.to_owned());
    let (_, others) = sorted::<ReplicateKind>(tool, cx, &whose, all.clone()).await?;
    let Some((seen, owner)) = others.first() else {
        return require_of(tool, cx, host, &all).await;
    };
    let what = format!(
        "{}, where the replica of {} would be, is of the host {}, and this one is {host}",
        seen.replica,
        seen.of,
        owner.as_deref().unwrap_or("?")
    );
    Err(ReplicateError::new(ReplicateKind::InvalidInput, what).hint(
        "give each host a `root` of its own for its replicas; if this machine was called that before, set `host` in the \
         configuration to it",
    ))
}

/// Refuses what says by a property of its own that it is another dataset's of this host.
async fn require_of(tool: &Tool, cx: &Context, host: &str, all: &[Seen]) -> Result<(), ReplicateError> {
    let doubtful = |seen: &&Seen| {
        seen.value
            .as_ref()
            .is_some_and(|value| *value != write(host, &seen.of))
    };
    let asked = all.iter().filter(doubtful).map(|seen| &seen.replica).collect();
    let own = own_values::<ReplicateKind>(tool, cx, &asked).await?;
    for seen in all {
        let ours = write(host, &seen.of);
        if let Some(value) = own.get(&seen.replica).filter(|value| **value != ours) {
            let (replica, of) = (&seen.replica, &seen.of);
            let what = format!("{replica}, where the replica of {of} would be, says that it is of {value:?}");
            return Err(ReplicateError::new(ReplicateKind::InvalidInput, what).hint(format!(
                "two datasets can't have one replica: give the replica `mapping = \"with-pool\"`, or each pool a `root` of its own. If \
                 the dataset was only renamed, say so on the replica's machine: `zfs set {}={ours} '{replica}'`",
                argv::ORIGIN
            )));
        }
    }
    Ok(())
}

/// The lineages of a dataset that are wanted, where its replica is: the one that is continued, and those set aside beside it. When
/// there are others only, that is an error: not "there are none", which a machine that was renamed or replaced would take for
/// a first start.
pub(crate) async fn lineages(
    tool: &Tool,
    cx: &Context,
    source: &SourceName,
    whose: &Whose,
    (of, replica): (&DatasetName, &DatasetName),
) -> Result<Vec<DatasetName>, SourceError> {
    let Some(parent) = names::parent(replica) else {
        return Ok(vec![replica.clone()]);
    };
    let mut all = list::origins::<SourceKind>(tool, cx, &parent).await?;
    all.retain(|(name, _)| name == replica || names::is_aside(replica, name.as_str()));
    let seen = all.into_iter().map(|(replica, value)| Seen {
        of: of.clone(),
        replica,
        value,
    });
    let (wanted, others) = sorted::<SourceKind>(tool, cx, whose, seen.collect()).await?;
    if wanted.is_empty() && !others.is_empty() {
        return Err(only_others(source, whose, of, &others));
    }
    Ok(wanted)
}

fn only_others(source: &SourceName, whose: &Whose, of: &DatasetName, others: &[Other]) -> SourceError {
    let hosts: BTreeSet<&str> = others.iter().filter_map(|(_, host)| host.as_deref()).collect();
    let hosts: Vec<&str> = hosts.into_iter().collect();
    let hint = match whose {
        Whose::Theirs(host) => format!(
            "where {} says nothing of whose it is and you know that it is {host}'s, tell it on its machine: \
             `zfs set {}={} '{}'`",
            others[0].0.replica,
            argv::ORIGIN,
            write(host, of),
            others[0].0.replica
        ),
        _ => "if that is what this machine was called before, set `host` in the configuration to it; another host's data \
              comes back with `reseed restore --from-host`"
            .to_owned(),
    };
    let what = if hosts.is_empty() {
        format!("nothing that {source} holds of {of} says whose it is")
    } else {
        format!("{source} holds {of} only of {}", hosts.join(", "))
    };
    SourceError::new(SourceKind::NoSuchPoint, what).hint(hint)
}

/// Refuses a point that lies in a lineage that isn't wanted.
pub(crate) async fn require_wanted(
    tool: &Tool,
    cx: &Context,
    whose: &Whose,
    lineage: &DatasetName,
) -> Result<(), SourceError> {
    let Some(host) = whose.host() else {
        return Ok(());
    };
    let owners = owners::<SourceKind>(tool, cx, &BTreeSet::from([lineage])).await?;
    let owner = owners.get(lineage).map(String::as_str);
    if whose.takes(owner) {
        return Ok(());
    }
    let what = match owner {
        Some(owner) => format!("{lineage} is of the host {owner}, and not of {host}"),
        None => format!("{lineage} says nothing of whose it is, and {host}'s was asked for"),
    };
    let hint = "`reseed status` lists what there is of this host; another host's data comes back with `reseed restore --from-host`";
    Err(SourceError::new(SourceKind::NoSuchPoint, what).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::super::argv::tests::ds;
    use super::*;

    #[test]
    fn a_value_is_one_word_and_names_its_host_again() {
        assert_eq!(write("nas", &ds("tank/a b:c")), "nas:tank/a%20b:c");
        for host in ["nas", "nas.lan-2_x", "a:b", "%41", "ü $(x)'\"\\;&|\n", ""] {
            let value = write(host, &ds("tank/a b"));
            let plain = |c: char| c.is_ascii_alphanumeric() || "_.-/:%".contains(c);
            assert!(value.chars().all(plain), "{value:?}");
            assert_eq!(host_of(&value), host);
        }
    }

    #[test]
    fn what_something_else_wrote_is_nobodys_that_we_know() {
        for value in ["nas", "%", "%4:x", "%zz:tank/a", "%FF:tank/a", "%+1:a", ""] {
            assert_eq!(host_of(value), value);
        }
    }

    #[test]
    fn only_what_leaves_no_doubt_is_settled_by_a_listing() {
        let (ours, theirs) = (Whose::Ours("nas".into()), Whose::Theirs("box".into()));
        let a = ds("tank/a");
        assert!(ours.surely(&a, None) && ours.surely(&a, Some("nas:tank/a")));
        // Inherited from above perhaps, or another host's: asked about once more.
        for doubtful in ["nas:tank", "box:tank/a", "nas", "x"] {
            assert!(!ours.surely(&a, Some(doubtful)), "{doubtful}");
        }
        assert!(!theirs.surely(&a, Some("box:tank/a")) && !theirs.surely(&a, None));
        assert!(ours.takes(None) && ours.takes(Some("nas")) && !ours.takes(Some("box")));
        assert!(!theirs.takes(None) && !theirs.takes(Some("nas")) && theirs.takes(Some("box")));
        assert!(Whose::Anybodys.takes(Some("box")) && Whose::Anybodys.surely(&a, Some("x")));
    }
}
