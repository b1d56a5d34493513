//! What is set on a dataset itself, so that a clone of it can have the same: a clone inherits from the dataset it stands below,
//! not from its origin, and would lose recordsize, quota or acltype without a word.
//!
//! Left out is what reseed sets itself, what can't be given to a clone (encryption, what is fixed when a filesystem is made),
//! and reservations: for a while both would have them, which a pool may have no room for.

use reseed_core::Context;
use reseed_core::error::{Effect, Error};
use reseed_core::names::DatasetName;

use super::error::FromFault;
use super::tool::Tool;
use super::{argv, error};

/// Never carried over.
const LEFT_OUT: &[&str] = &[
    "mountpoint",
    "canmount",
    "reservation",
    "refreservation",
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

/// Names and values of what is set on the dataset, and not inherited.
pub(crate) async fn own<K: FromFault>(
    tool: &Tool,
    cx: &Context,
    dataset: &DatasetName,
) -> Result<Vec<(String, String)>, Error<K>> {
    let what = format!("can't read what is set on {dataset}");
    let output = error::succeeded::<K>(tool.ask(cx, argv::get_own(dataset)).await, &*what, Effect::None)?;
    let text = output
        .whole_stdout()
        .map_err(|error| error.into_error(&*what, Effect::None))?;
    Ok(chosen(&String::from_utf8_lossy(text), dataset))
}

/// A value with a newline in it makes lines that are none; it stays behind.
fn chosen(text: &str, dataset: &DatasetName) -> Vec<(String, String)> {
    let line = |line: &str| {
        let (name, rest) = line.split_once('\t')?;
        let (property, rest) = rest.split_once('\t')?;
        let (value, _source) = rest.rsplit_once('\t')?;
        let ours = property.starts_with("reseed:") || LEFT_OUT.contains(&property);
        (name == dataset.as_str() && !ours).then(|| (property.to_owned(), value.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::argv::tests::ds;
    use super::*;

    #[test]
    fn what_is_reseeds_own_and_what_a_clone_cannot_have_stays_behind() {
        let text = "tank/a\trecordsize\t16384\tlocal\ntank/a\tmountpoint\t/a\tlocal\ntank/a\treservation\t5\tlocal\n\
                    tank/a\tx:y\ta b\treceived\ntank/a\tkeylocation\tprompt\tlocal\n";
        let found = chosen(text, &ds("tank/a"));
        let expected = [("recordsize", "16384"), ("x:y", "a b")];
        assert_eq!(
            found,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert_eq!(chosen("tank/a\tx:y\tone\ntwo\tlocal\n", &ds("tank/a")), []);
    }
}
