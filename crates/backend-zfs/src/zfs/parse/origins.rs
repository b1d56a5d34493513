//! What datasets say of whose replicas they are, exactly: whatever is in a value, where it ends is not for it to say.

use reseed_core::names::DatasetName;

use super::super::argv::ORIGIN;
use super::super::rows;
use super::{BadOutput, Found, bad, read_name, shown, text};

/// What a listing that can't tell a value has in its place. No host is ever written so, so it is asked about by itself.
pub(super) const ODD: &str = "?";

/// Each dataset, and what was said after the property's name.
fn said(stdout: &[u8], nonce: u64) -> Result<Found<(DatasetName, String)>, BadOutput> {
    let text = text(stdout)?;
    let (mut all, mut odd): Found<(DatasetName, String)> = (Vec::new(), Vec::new());
    for block in rows::blocks(&text, nonce)? {
        let wrong = |what: &str| BadOutput(format!("{what}: {}", shown(block.name)));
        let Some(name) = read_name(block.name, DatasetName::new(block.name).ok(), &mut odd)? else {
            continue;
        };
        if all.iter().any(|(known, _)| *known == name) {
            return Err(wrong("it tells one twice"));
        }
        let lines = block.lines.join("\n");
        let said = (lines.strip_prefix(block.name))
            .and_then(|rest| rest.strip_prefix('\t')?.strip_prefix(ORIGIN)?.strip_prefix('\t'));
        all.push((
            name,
            said.ok_or_else(|| wrong("it is no answer about"))?.to_owned(),
        ));
    }
    Ok((all, odd))
}

/// Reads the answer to [`list_origins`](super::super::argv::list_origins): each dataset with its value. `-` is none.
pub(crate) fn origins(stdout: &[u8], nonce: u64) -> Result<Found<(DatasetName, Option<String>)>, BadOutput> {
    let (all, odd) = said(stdout, nonce)?;
    let value = |(name, value): (DatasetName, String)| (name, (value != "-").then_some(value));
    Ok((all.into_iter().map(value).collect(), odd))
}

/// Reads the answer to [`get_origins`](super::super::argv::get_origins): those that have a value of their own, with it.
pub(crate) fn own_origins(stdout: &[u8], nonce: u64) -> Result<Vec<(DatasetName, String)>, BadOutput> {
    let mut own = Vec::new();
    let (all, odd) = said(stdout, nonce)?;
    if let Some(odd) = odd.first() {
        return bad(format!("it is about something else: {odd:?}"));
    }
    for (name, said) in all {
        match said.rsplit_once('\t') {
            Some((value, "local")) => own.push((name, value.to_owned())),
            Some((_, source)) if rows::is_source(source) => {}
            _ => return bad(format!("{name} has a value without its source: {}", shown(&said))),
        }
    }
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::super::super::argv::tests::ds;
    use super::super::super::rows::end;
    use super::*;

    const NONCE: u64 = 7;

    /// What anybody may write, and what each would look like if it were believed.
    const ODD_VALUES: [&str; 6] = [
        "x\ty",
        "x\n",
        "x\nback/z\treseed:origin\tnas:tank/z",
        "-\nback/z\treseed:origin\t-",
        "nas:tank/b\tlocal\nmore",
        "-\tlocal\nback/z\treseed:end-0000000000000008\t-\nback/z\treseed:origin\tx",
    ];

    fn listing(odd: &str) -> String {
        let end = end(NONCE);
        let values = [("back/a", "nas:tank/a"), ("back/b", odd), ("back/c d", "-")];
        values
            .map(|(name, value)| format!("{name}\t{ORIGIN}\t{value}\n{name}\t{end}\t-\n"))
            .concat()
    }

    #[test]
    fn an_odd_value_is_what_it_is_and_spoils_no_other() {
        for odd in ODD_VALUES {
            let expected = [
                (ds("back/a"), Some("nas:tank/a".to_owned())),
                (ds("back/b"), Some(odd.to_owned())),
                (ds("back/c d"), None),
            ];
            let found = origins(listing(odd).as_bytes(), NONCE).unwrap();
            assert_eq!((found.0.as_slice(), found.1.len()), (&expected[..], 0));
        }
    }

    #[test]
    fn only_a_datasets_own_value_is_told_however_odd_it_is() {
        for odd in ODD_VALUES {
            for (source, own) in [
                ("local", true),
                ("inherited from back", false),
                ("received", false),
            ] {
                let listed = listing(&format!("{odd}\t{source}"));
                let listed = listed.replace("nas:tank/a\n", "nas:tank/a\tlocal\n");
                let listed = listed.replace("\t-\nback/c d", "\t-\t-\nback/c d");
                let found = own_origins(listed.as_bytes(), NONCE).unwrap();
                let mut expected = vec![(ds("back/a"), "nas:tank/a".to_owned())];
                if own {
                    expected.push((ds("back/b"), odd.to_owned()));
                }
                assert_eq!(found, expected, "{listed}");
            }
        }
    }

    #[test]
    fn an_odd_name_costs_no_other_its_value() {
        let listing = listing("x").replace("back/b", "back/-b ");
        let (all, odd) = origins(listing.as_bytes(), NONCE).unwrap();
        assert_eq!(
            all,
            [
                (ds("back/a"), Some("nas:tank/a".to_owned())),
                (ds("back/c d"), None)
            ]
        );
        assert_eq!(odd, [super::super::Odd::Name("back/-b ".to_owned())]);
        assert!(own_origins(listing.as_bytes(), NONCE).is_err());
    }

    #[test]
    fn what_is_cut_or_about_something_else_is_no_answer() {
        let whole = listing("x");
        for bad in [
            &whole[..whole.len() - 3],
            "back/a\treseed:origin\tx\n",
            &whole.replace("back/c d", "back/a"),
            &whole.replace(ORIGIN, "reseed:other"),
            &whole.replace("back/b", "/"),
        ] {
            assert!(origins(bad.as_bytes(), NONCE).is_err(), "{bad:?}");
        }
        // Without its source.
        assert!(own_origins(whole.as_bytes(), NONCE).is_err());
        assert_eq!(origins(b"", NONCE).unwrap(), (vec![], vec![]));
    }
}
