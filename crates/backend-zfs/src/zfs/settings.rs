//! What is set on a dataset itself, so that a clone of it can have the same: a clone inherits from the dataset it stands below,
//! not from its origin, and would lose recordsize, quota or acltype without a word.
//!
//! Left out is what reseed sets itself, and what can't be given to a clone (encryption, what is fixed when a filesystem is
//! made). Reservations come afterwards ([`space`]): for a while both have them, which a pool may have no room for.

use reseed_core::Context;
use reseed_core::error::{Effect, Error};
use reseed_core::names::DatasetName;

use super::error::FromFault;
use super::parse::BadOutput;
use super::space::{self, Wanted};
use super::tool::{Tool, not_cancelled};
use super::{argv, rows};

/// Never carried over.
const LEFT_OUT: &[&str] = &[
    "mountpoint",
    "canmount",
    "volsize",
    "encryption",
    "keyformat",
    "keylocation",
    "pbkdf2iters",
    "casesensitivity",
    "normalization",
    "utf8only",
    "zoned",
    "mlslabel",
];

/// What is set on a dataset, and not inherited.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Own {
    /// What a clone can be made with: names and values.
    pub(crate) set: Vec<(String, String)>,
    /// Its reservations.
    pub(crate) reserved: Wanted,
}

/// What is set on the dataset.
pub(crate) async fn own<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    dataset: &DatasetName,
) -> Result<Own, Error<K>> {
    let what = format!("can't read what is set on {dataset}");
    tool.read(cx, argv::get_own(dataset), &what, |stdout| {
        chosen(&String::from_utf8_lossy(stdout), dataset)
    })
    .await
}

/// A value with a newline in it stays behind, and so does what it makes look like another property.
fn chosen(text: &str, dataset: &DatasetName) -> Result<Own, BadOutput> {
    let mut own = Own::default();
    let lines: Vec<&str> = rows::lines(text).collect();
    for fact in rows::facts(dataset.as_str(), &lines)? {
        let Some(value) = fact.value else {
            continue;
        };
        let known = space::PROPERTIES
            .into_iter()
            .find(|known| *known == fact.property);
        // None of it is what a new dataset has, and a 0 no clone can be made with ("use 'none' to disable quota/refquota").
        if known.is_some() && value == "0" {
            continue;
        }
        if let Some(known) = known.filter(|known| known.contains("reservation")) {
            own.reserved.insert(known, value.to_owned());
        // What isn't UTF-8 can't be written as it was.
        } else if !fact.property.starts_with("reseed:")
            && !LEFT_OUT.contains(&fact.property)
            && !value.contains(char::REPLACEMENT_CHARACTER)
        {
            own.set.push((fact.property.to_owned(), value.to_owned()));
        }
    }
    Ok(own)
}

/// Gives a dataset these, each by itself. Answers with the names of those that couldn't be had, and why the first of them couldn't.
pub(crate) async fn each<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    dataset: &DatasetName,
    set: &[(String, String)],
) -> Result<Option<(Vec<String>, Error<K>)>, Error<K>> {
    let mut unset: Option<(Vec<String>, Error<K>)> = None;
    for (property, value) in set {
        let what = format!("can't set {property} of {dataset}");
        let args = argv::set(dataset, &[(property, value)]);
        let Err(refused) = tool.change::<K>(cx, args, what, Effect::StagingOnly).await else {
            continue;
        };
        not_cancelled::<K>(cx)?;
        let (names, _) = unset.get_or_insert((Vec::new(), refused));
        names.push(property.clone());
    }
    Ok(unset)
}

#[cfg(test)]
mod tests {
    use super::super::argv::tests::ds;
    use super::*;

    #[test]
    fn what_is_reseeds_own_and_what_a_clone_cannot_have_stays_behind() {
        let text = "tank/a\trecordsize\t16384\tlocal\ntank/a\tmountpoint\t/a\tlocal\ntank/a\treservation\t5\tlocal\n\
                    tank/a\tquota\t0\tlocal\ntank/a\trefquota\t0\tlocal\n\
                    tank/a\tkeylocation\tprompt\tlocal\ntank/a\tx:y\ta b\treceived\n";
        let found = chosen(text, &ds("tank/a")).unwrap();
        let expected = [("recordsize", "16384"), ("x:y", "a b")];
        assert_eq!(
            found.set,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert_eq!(found.reserved, Wanted::from([("reservation", "5".to_owned())]));
        for odd in [
            "one\ntwo",
            "x\ntank/a\tsharenfs\ton\tlocal",
            "x\tlocal\ntank/a\tsharenfs\ton",
            "x\tlocal\ntank/a\treservation\t5\tlocal\n",
            "\u{fffd}",
        ] {
            let found = chosen(&format!("tank/a\tx:y\t{odd}\tlocal\n"), &ds("tank/a")).unwrap();
            assert_eq!(found, Own::default(), "{odd:?}");
        }
        assert_eq!(chosen("", &ds("tank/a")).unwrap(), Own::default());
    }
}
