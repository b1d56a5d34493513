//! Listings whose last columns hold what anybody may have written: user properties. Pure.
//!
//! `zfs` prints values as they are, so one with a tab or a newline in it looks like more columns or more lines, also like the
//! lines of other datasets. A listing is believed only when no value can have done that ([`plain`]); otherwise the same is
//! asked again in a form that can't be forged ([`blocks`]). An odd value then costs what it is on this one fact, and nobody
//! else anything.

use std::collections::HashSet;

use super::parse::{BadOutput, bad, shown};

/// The columns of a listing that ends each line with its first column once more.
pub(crate) fn columns(all: &[&str]) -> String {
    format!("{},{}", all.join(","), all[0])
}

/// The lines of a listing of so many columns and their first once more; none when a value may have made some of them.
///
/// A value with a newline makes at least two lines of one. The first begins with the name of what it is on and the last ends
/// with it, so either one of them doesn't end as it begins, or that name is there twice.
pub(crate) fn plain(text: &str, columns: usize) -> Option<Vec<Vec<&str>>> {
    let mut seen = HashSet::new();
    let row = |line: &'_ str| -> Option<usize> {
        let mut parts = line.split('\t');
        let first = parts.next()?;
        (parts.clone().count() == columns && parts.next_back() == Some(first)).then_some(first.len())
    };
    let mut rows = Vec::new();
    for line in lines(text) {
        let name = &line[..row(line)?];
        if !seen.insert(name) {
            return None;
        }
        let mut parts: Vec<&str> = line.split('\t').collect();
        parts.pop();
        rows.push(parts);
    }
    Some(rows)
}

/// Whole lines. Not `str::lines`, which takes a carriage return off.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.strip_suffix('\n')
        .into_iter()
        .flat_map(|text| text.split('\n'))
}

/// The property that ends the answers about one dataset or snapshot in `zfs get`. It is set nowhere, and nobody can have
/// guessed it when they wrote a value.
pub(crate) fn end(nonce: u64) -> String {
    format!("reseed:end-{nonce:016x}")
}

/// What is asked for after a listing's name, in the order of [`values`]: first what no user can have written.
pub(crate) fn asked<'a>(columns: &[&'a str]) -> Vec<&'a str> {
    let (user, native): (Vec<&str>, Vec<&str>) = columns[1..].iter().partition(|name| name.contains(':'));
    [native, user].concat()
}

/// A number that nobody can guess.
pub(crate) fn nonce() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}

/// What was answered about one dataset or snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block<'a> {
    pub(crate) name: &'a str,
    /// Its lines, without the one that ends it.
    pub(crate) lines: Vec<&'a str>,
}

/// Cuts an answer of `zfs get -Hp -o name,property,value…` at the lines of [`end`].
pub(crate) fn blocks(text: &str, nonce: u64) -> Result<Vec<Block<'_>>, BadOutput> {
    let end = end(nonce);
    let mut blocks = Vec::new();
    let mut open: Vec<&str> = Vec::new();
    for line in lines(text) {
        let Some(first) = open.first() else {
            open.push(line);
            continue;
        };
        let name = first.split('\t').next().unwrap_or("");
        let ends = line
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('\t'))
            .and_then(|rest| rest.strip_prefix(end.as_str()))
            .is_some_and(|rest| rest.starts_with('\t'));
        if ends {
            let lines = std::mem::take(&mut open);
            blocks.push(Block { name, lines });
        } else {
            open.push(line);
        }
    }
    match open.last() {
        Some(line) => bad(format!("it ends in the middle: {}", shown(line))),
        None => Ok(blocks),
    }
}

/// A block's values of these properties, in the order of [`asked`]; none for one that can't be read. Only those of a user, which
/// have a colon in their names, may be odd.
pub(crate) fn values<'a>(block: &Block<'a>, properties: &[&str]) -> Result<Vec<Option<&'a str>>, BadOutput> {
    let value = |line: &'a str, property: &str| -> Option<&'a str> {
        line.strip_prefix(block.name)?
            .strip_prefix('\t')?
            .strip_prefix(property)?
            .strip_prefix('\t')
    };
    let mut at = 0;
    let mut all = Vec::with_capacity(properties.len());
    for (nth, property) in properties.iter().enumerate() {
        let Some(found) = block.lines.get(at).and_then(|line| value(line, property)) else {
            return bad(format!("{} has no {property}", block.name));
        };
        // It goes on until the next property's line, or to the end.
        let more = match properties.get(nth + 1) {
            Some(next) => block.lines[at + 1..]
                .iter()
                .position(|line| value(line, next).is_some()),
            None => Some(block.lines.len() - at - 1),
        };
        let Some(more) = more else {
            return bad(format!("{} has nothing after {property}", block.name));
        };
        let odd = more > 0 || found.contains('\t');
        if odd && !property.contains(':') {
            return bad(format!("{property} of {} is odd: {}", block.name, shown(found)));
        }
        all.push((!odd).then_some(found));
        at += 1 + more;
    }
    Ok(all)
}

/// A line of `zfs get -Hp -o name,property,value,source all`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fact<'a> {
    pub(crate) property: &'a str,
    /// None when it goes over several lines, and so may hold anything.
    pub(crate) value: Option<&'a str>,
    pub(crate) source: &'a str,
}

/// What the lines about one dataset say of it, each property once.
///
/// ZFS prints its own properties first and those of users behind them, so nothing that looks like one of its own behind the first
/// of a user's is one. What is no line of this dataset belongs to the value before it. A user's value can still make up another
/// property of a user's on the same dataset: whoever may write one may write all.
pub(crate) fn facts<'a>(name: &str, lines: &[&'a str]) -> Result<Vec<Fact<'a>>, BadOutput> {
    let mut all: Vec<Fact<'a>> = Vec::new();
    let mut of_users = false;
    for line in lines {
        let begun = line
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('\t')?.split_once('\t'))
            .filter(|(property, _)| is_property(property) && (property.contains(':') || !of_users));
        let Some((property, rest)) = begun else {
            match all.last_mut() {
                Some(before) => before.value = None,
                None => return bad(format!("it doesn't begin with {name}: {}", shown(line))),
            }
            continue;
        };
        of_users |= property.contains(':');
        // Whoever made up the second, nobody knows which of them it was.
        if let Some(twice) = all.iter_mut().find(|fact| fact.property == property) {
            twice.value = None;
            continue;
        }
        let (value, source) = match rest.rsplit_once('\t') {
            Some((value, source)) if is_source(source) => (Some(value), source),
            _ => (None, ""),
        };
        all.push(Fact {
            property,
            value,
            source,
        });
    }
    Ok(all)
}

fn is_property(name: &str) -> bool {
    !name.is_empty()
        && (name.chars()).all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_@:-.+".contains(c))
}

/// Whether `zfs get` tells so where a value comes from.
pub(crate) fn is_source(text: &str) -> bool {
    ["-", "local", "received", "default", "temporary", "none"].contains(&text)
        || text.starts_with("inherited from ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_can_make_a_plain_line() {
        assert_eq!(plain("", 2), Some(vec![]));
        assert_eq!(
            plain("a\t1\ta\nb\t2\r\tb\n", 2),
            Some(vec![vec!["a", "1"], vec!["b", "2\r"]])
        );
        let listing = |value: &str| format!("a\t1\t{value}\ta\nb\t2\t-\tb\n");
        assert!(plain(&listing("-"), 3).is_some());
        for odd in [
            "x\ty",
            "x\ny",
            "x\n",
            "\n",
            "x\ta\nc\t3\tnow\tc",
            "x\ta\nc\t3\tnow",
            // As good as it gets: each line ends as it begins.
            "x\ta\nc\t3\tnow\tc\na\t1\tz",
            "x\ta\nb\t2\tnow\tb\na\t1\tz",
        ] {
            assert_eq!(plain(&listing(odd), 3), None, "{odd:?}");
        }
        assert_eq!(columns(&["name", "x:y"]), "name,x:y,name");
        assert_eq!(asked(&["name", "guid", "x:y", "size"]), ["guid", "size", "x:y"]);
    }

    const ASKED: [&str; 3] = ["guid", "x:one", "x:two"];

    fn answer(one: &str, two: &str) -> String {
        let end = end(7);
        format!(
            "a\tguid\t1\na\tx:one\t{one}\na\tx:two\t{two}\na\t{end}\t-\nb\tguid\t2\nb\tx:one\t-\nb\tx:two\t-\nb\t{end}\t-\n"
        )
    }

    #[test]
    fn an_odd_value_costs_its_own_at_the_most() {
        for odd in [
            "x\ty".to_owned(),
            "x\ny\tz".to_owned(),
            "x\nb\tguid\t9\nb\tx:one\tforged".to_owned(),
            format!("x\nb\tguid\t9\nb\tx:one\tf\nb\tx:two\tf\nb\t{}\t-\na", end(8)),
            format!("\na\t{}\t-\n", end(8)),
        ] {
            for (text, expected) in [
                (answer(&odd, "two"), [Some("1"), None, Some("two")]),
                (answer("one", &odd), [Some("1"), Some("one"), None]),
            ] {
                let found = blocks(&text, 7).unwrap();
                assert_eq!(found.len(), 2, "{odd:?}");
                assert_eq!(values(&found[0], &ASKED).unwrap(), expected, "{odd:?}");
                let other = values(&found[1], &ASKED).unwrap();
                assert_eq!(other, [Some("2"), Some("-"), Some("-")], "{odd:?}");
            }
        }
        // What looks like its own next property costs that one too, and nothing of anybody else's.
        let text = answer("x\na\tx:two\tforged", "two");
        let found = blocks(&text, 7).unwrap();
        let [guid, one, two] = values(&found[0], &ASKED).unwrap()[..] else {
            panic!("{found:?}")
        };
        assert_eq!((guid, one, two), (Some("1"), Some("x"), None));
    }

    #[test]
    fn a_value_makes_no_property_of_zfs_itself() {
        for odd in [
            "x\ty",
            "x\ny",
            "\n",
            "x\na\tsharenfs\ton\tlocal",
            "x\tlocal\na\tsharenfs\ton",
            "x\tlocal\nb\tsharenfs\ton",
            "x\tlocal\na\tquota\t5\tlocal\na\tx:two\tforged",
        ] {
            let text = format!(
                "a\ttype\tfilesystem\t-\na\tquota\t0\tdefault\na\tx:one\t{odd}\tlocal\na\tx:two\t2\tlocal\n"
            );
            let found = facts("a", &lines(&text).collect::<Vec<_>>()).unwrap();
            let names: Vec<&str> = found.iter().map(|fact| fact.property).collect();
            assert_eq!(names, ["type", "quota", "x:one", "x:two"], "{odd:?}");
            assert_eq!(found[1].value, Some("0"), "{odd:?}");
            let one = (!odd.contains('\n')).then_some(odd);
            assert_eq!(found[2].value, one, "{odd:?}");
            let two = (!odd.contains("x:two")).then_some("2");
            assert_eq!(found[3].value, two, "{odd:?}");
        }
        assert!(facts("a", &["b\ttype\tfilesystem\t-"]).is_err());
    }

    #[test]
    fn a_cut_answer_is_none() {
        let text = answer("one", "two");
        for cut in 1..text.len() {
            let whole = text[..cut].ends_with(&format!("{}\t-\n", end(7)));
            assert_eq!(
                blocks(&text[..cut], 7).is_ok_and(|all| !all.is_empty()),
                whole,
                "{cut}"
            );
        }
        let block = Block {
            name: "a",
            lines: vec!["a\tguid\t1", "a\tx:two\t-"],
        };
        assert!(values(&block, &ASKED).is_err());
        let block = Block {
            name: "a",
            lines: vec!["a\tguid\t1", "more", "a\tx:one\t-", "a\tx:two\t-"],
        };
        assert!(values(&block, &ASKED).is_err());
    }
}
