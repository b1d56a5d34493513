//! What a dataset is given that is made anew: as the place that a backup of files is restored into, or for a first start.
//!
//! That is what is set on the one that it stands in for (the live one, or else what was set aside last), and above it what is
//! declared. Without it the files come back and the dataset is another: without `acltype=posix` no ACL can be restored, and
//! recordsize, compression and encryption are lost without a word. What is sent or cloned has its settings with it
//! ([`settings`](super::settings)).
//!
//! What ZFS refuses of it is told and costs only itself: a setting must not keep the data away. Encryption is the exception, for
//! what was encrypted must not come to stand in clear text.

use std::collections::BTreeMap;

use reseed_core::Context;
use reseed_core::error::{Effect, StoreError, StoreKind};
use reseed_core::event::Event;
use reseed_core::layout::{Counts, Property};
use reseed_core::names::DatasetName;
use reseed_core::point::Target;

use super::tool::{Tool, not_cancelled};
use super::{argv, list, parse, settings, settle, space};

/// What is declared of a dataset: its ZFS properties.
pub(crate) type Declared = BTreeMap<String, String>;

/// What is declared of one of them; nothing where it isn't declared.
pub(crate) fn declared_of<'a>(
    all: &'a BTreeMap<DatasetName, Declared>,
    dataset: &DatasetName,
) -> &'a Declared {
    all.get(dataset).unwrap_or(const { &Declared::new() })
}

/// Fixed when a dataset is made, in the order they are asked for; the last may hold anything, which then ends the answer.
pub(crate) const AT_CREATION: [&str; 7] = [
    "casesensitivity",
    "normalization",
    "utf8only",
    "encryption",
    "encryptionroot",
    "keyformat",
    "keylocation",
];

/// What belongs to a key.
const OF_KEY: [&str; 3] = ["encryption", "keyformat", "keylocation"];

/// What stands in the way of filling a dataset, or of reading it back alone; and what data that is there must not fail for.
fn comes_later(property: &str) -> bool {
    ["readonly", "snapdir"].contains(&property) || space::PROPERTIES.contains(&property)
}

/// What a dataset is to be made with.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fresh {
    /// With the command that makes it.
    made: BTreeMap<String, String>,
    /// Right after that.
    set: BTreeMap<String, String>,
    /// Once its data is in it.
    pub(crate) later: BTreeMap<String, String>,
    /// Why its encryption can't be had, whatever `zfs` would say.
    locked: Option<String>,
}

impl Fresh {
    /// Takes a setting in, in place of an earlier one.
    fn take(&mut self, property: &str, value: &str) {
        let property = property.to_owned();
        let all = match property.as_str() {
            // Where it is mounted, and when, is for what puts it in place.
            "mountpoint" | "canmount" => return,
            later if comes_later(later) => &mut self.later,
            made if at_creation(made) => &mut self.made,
            _ => &mut self.set,
        };
        all.insert(property, value.to_owned());
    }

    /// Why nothing can be made of it, if so.
    pub(crate) fn refused(&self) -> Option<StoreError> {
        let why = self.locked.as_ref()?;
        Some(StoreError::new(StoreKind::Unsupported, why.clone()).hint(
            "give its key a keylocation that is a file (`zfs change-key`, or declare encryption, keyformat and keylocation), or make the \
             dataset above it encrypted; then run it again",
        ))
    }

    /// The encryption and the key that it is made with, if it has its own.
    pub(crate) fn key(&self) -> Vec<(&str, &str)> {
        if self.made.get("encryption").is_none_or(|value| value == "off") {
            return Vec::new();
        }
        let value = |of_key| Some((of_key, self.made.get(of_key)?.as_str()));
        OF_KEY.into_iter().filter_map(value).collect()
    }

    /// Makes a dataset of it, and with what only the caller knows of.
    ///
    /// # Errors
    /// What `zfs create` says, and when the encryption can't be had.
    pub(crate) async fn make(
        &self,
        tool: &Tool,
        cx: &Context,
        name: &DatasetName,
        ours: &[(&str, &str)],
        effect: Effect,
    ) -> Result<(), StoreError> {
        if let Some(refused) = self.refused() {
            return Err(refused);
        }
        let made = self
            .made
            .iter()
            .map(|(property, value)| (property.as_str(), value.as_str()));
        let all: Vec<_> = made.chain(ours.iter().copied()).collect();
        let what = format!("can't make {name}");
        let result = tool
            .change::<StoreKind>(cx, argv::create(name, &all), what.clone(), effect)
            .await;
        if let Err(refused) = result {
            not_cancelled::<StoreKind>(cx)?;
            let encrypted = self.made.get("encryption").is_some_and(|value| value != "off");
            // What isn't of the settings comes again without them.
            if encrypted || self.made.is_empty() || refused.kind() == StoreKind::AlreadyExists {
                return Err(refused);
            }
            tool.change::<StoreKind>(cx, argv::create(name, ours), what, effect)
                .await?;
            warn(
                cx,
                format!("{name} was made without {}: {refused}", names(&self.made)),
            );
        }
        apply(tool, cx, name, &self.set).await
    }
}

fn at_creation(property: &str) -> bool {
    Property::find(property).is_some_and(|known| known.counts == Counts::AtCreation)
}

fn names(of: &BTreeMap<String, String>) -> String {
    of.iter()
        .map(|(property, value)| format!("{property}={value}"))
        .collect::<Vec<_>>()
        .join(", ")
}

pub(crate) fn warn(cx: &Context, message: String) {
    cx.emit(Event::Warning {
        service: None,
        message,
        hint: Some("look at it with `reseed plan`, or set it by hand".to_owned()),
    });
}

/// Sets each, in one command if it can be; what is refused is told.
pub(crate) async fn apply(
    tool: &Tool,
    cx: &Context,
    name: &DatasetName,
    set: &BTreeMap<String, String>,
) -> Result<(), StoreError> {
    let all: Vec<(&str, &str)> = set
        .iter()
        .map(|(property, value)| (property.as_str(), value.as_str()))
        .collect();
    if all.is_empty() {
        return Ok(());
    }
    let change = async |some: &[(&str, &str)], what: String| {
        tool.change::<StoreKind>(cx, argv::set(name, some), what, Effect::Partial)
            .await
    };
    if change(&all, format!("can't set properties of {name}"))
        .await
        .is_ok()
    {
        return Ok(());
    }
    for one in &all {
        not_cancelled::<StoreKind>(cx)?;
        let what = format!("{}={} can't be had for {name}", one.0, one.1);
        if let Err(refused) = change(std::slice::from_ref(one), what).await {
            warn(cx, refused.to_string());
        }
    }
    not_cancelled::<StoreKind>(cx)
}

/// What the target's dataset is to be made with.
///
/// # Errors
/// When it can't be told what is set on the one that it stands in for.
pub(crate) async fn fresh(
    tool: &Tool,
    cx: &Context,
    target: &Target,
    declared: &Declared,
) -> Result<Fresh, StoreError> {
    let mut fresh = Fresh::default();
    if let Some(model) = model(tool, cx, target).await? {
        let own = settings::own::<StoreKind>(tool, cx, &model).await?;
        for (property, value) in &own.set {
            fresh.take(property, value);
        }
        for (property, value) in &own.reserved {
            fresh.take(property, value);
        }
        let what = format!("can't read how {model} was made");
        tool.read::<StoreKind, _>(cx, argv::get_at_creation(&model), &what, |stdout| {
            made_as(&mut fresh, &model, &parse::text(stdout)?)
        })
        .await?;
    }
    if declared.contains_key("encryption") {
        fresh.locked = None;
        for of_key in OF_KEY {
            fresh.made.remove(of_key);
        }
    }
    for (property, value) in declared {
        fresh.take(property, value);
    }
    Ok(fresh)
}

/// The dataset whose settings are meant: the live one, or what was set aside for it last.
async fn model(tool: &Tool, cx: &Context, target: &Target) -> Result<Option<DatasetName>, StoreError> {
    if settle::known(tool, cx, &target.dataset).await?.is_some() {
        return Ok(Some(target.dataset.clone()));
    }
    // Their names have the run's time in them, and so are in order.
    let asides = list::asides::<StoreKind>(tool, cx, &target.dataset).await?;
    Ok(asides.into_iter().max())
}

/// Takes in what was decided when the model was made, where it isn't ZFS's own default.
fn made_as(fresh: &mut Fresh, model: &DatasetName, text: &str) -> Result<(), parse::BadOutput> {
    let lines: Vec<&str> = super::rows::lines(text).collect();
    let mut values: BTreeMap<&str, &str> = BTreeMap::new();
    for (nth, property) in AT_CREATION.into_iter().enumerate() {
        let value = lines
            .get(nth)
            .and_then(|line| line.strip_prefix(property)?.strip_prefix('\t'));
        let Some(value) = value else {
            return parse::bad(format!("{model} has no {property}"));
        };
        values.insert(property, value);
    }
    for (property, default) in [
        ("casesensitivity", "sensitive"),
        ("normalization", "none"),
        ("utf8only", "off"),
    ] {
        if ![default, "-"].contains(&values[property]) {
            fresh.take(property, values[property]);
        }
    }
    // What has its key from above is made below that again.
    if values["encryptionroot"] != model.as_str() {
        return Ok(());
    }
    let location = values["keylocation"];
    let readable = ["file:///", "https://", "http://"]
        .iter()
        .any(|begin| location.starts_with(begin));
    if !readable || lines.len() > AT_CREATION.len() {
        fresh.locked = Some(format!(
            "{model} is encrypted with a key of its own that is asked for by hand, so no other dataset can be made with it, and what is \
             restored would stand in clear text"
        ));
        return Ok(());
    }
    for of_key in OF_KEY {
        fresh.take(of_key, values[of_key]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::argv::tests::ds;
    use super::*;

    fn answer(encryption: &str, root: &str, format: &str, location: &str) -> String {
        format!(
            "casesensitivity\tmixed\nnormalization\tnone\nutf8only\toff\nencryption\t{encryption}\nencryptionroot\t{root}\n\
             keyformat\t{format}\nkeylocation\t{location}\n"
        )
    }

    fn made(text: &str) -> Fresh {
        let mut fresh = Fresh::default();
        made_as(&mut fresh, &ds("tank/a"), text).unwrap();
        fresh
    }

    fn pairs(of: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
        of.iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }

    #[test]
    fn a_key_of_its_own_comes_along_when_it_can_be_read_and_nothing_is_made_when_not() {
        let plain = made(&answer("off", "-", "none", "none"));
        assert_eq!(pairs(&plain.made), [("casesensitivity", "mixed")]);
        assert_eq!(plain.locked, None);
        let below = made(&answer("aes-256-gcm", "tank", "none", "none"));
        assert_eq!((below.made.len(), below.locked), (1, None));
        let own = made(&answer("aes-256-gcm", "tank/a", "raw", "file:///k"));
        let expected = [
            ("casesensitivity", "mixed"),
            ("encryption", "aes-256-gcm"),
            ("keyformat", "raw"),
            ("keylocation", "file:///k"),
        ];
        assert_eq!(pairs(&own.made), expected);
        assert_eq!(own.key(), expected[1..]);
        assert_eq!(plain.key(), []);
        for by_hand in ["prompt", "-", "file:///a\nb"] {
            let found = made(&answer("aes-256-gcm", "tank/a", "passphrase", by_hand));
            assert!(
                found.locked.is_some() && !found.made.contains_key("encryption"),
                "{by_hand:?}"
            );
        }
        for odd in [
            "",
            "casesensitivity\tmixed\n",
            "utf8only\toff\ncasesensitivity\tmixed\n",
        ] {
            let mut fresh = Fresh::default();
            assert!(made_as(&mut fresh, &ds("tank/a"), odd).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn what_would_be_in_the_way_comes_later_and_where_it_is_mounted_never() {
        let mut fresh = Fresh::default();
        for (property, value) in [
            ("recordsize", "16K"),
            ("mountpoint", "/x"),
            ("canmount", "off"),
            ("readonly", "on"),
            ("quota", "1G"),
            ("utf8only", "on"),
            ("x:y", "z"),
            ("recordsize", "8K"),
        ] {
            fresh.take(property, value);
        }
        assert_eq!(pairs(&fresh.set), [("recordsize", "8K"), ("x:y", "z")]);
        assert_eq!(pairs(&fresh.later), [("quota", "1G"), ("readonly", "on")]);
        assert_eq!(pairs(&fresh.made), [("utf8only", "on")]);
    }
}
