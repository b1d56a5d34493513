//! A text as Perl's `Config::IniFiles` reads it with the settings that sanoid gives it: sections, keys, values, each
//! with its place. Knows nothing of what the keys mean.
//!
//! - A comment is a whole line that begins with `#` or `;`. Behind a value there are none: they belong to it.
//! - Two sections of one name are one. A value ends with its line; blanks before it are dropped, those behind it stay.
//! - A key that stands twice has two values, which sanoid before 2.3 can't make sense of; here it is an error, and so is
//!   a here-document (`key = <<END`), which gives several values too.

use std::collections::HashMap;
use std::ops::Range;

use reseed_core::config::Findings;

/// Sections in the order of their first appearance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ini {
    pub(super) sections: Vec<Section>,
}

/// A section and its keys in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) span: Range<usize>,
    pub(super) params: Vec<Param>,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Param {
    pub(super) key: String,
    pub(super) key_span: Range<usize>,
    pub(super) value: String,
    pub(super) value_span: Range<usize>,
}

/// Reads all of it; what is wrong goes to the findings and is left out.
pub(super) fn read(text: &str, findings: &mut Findings<'_>) -> Ini {
    let mut ini = Ini::default();
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    let mut current: Option<usize> = None;
    let mut here_document: Option<&str> = None;
    let mut at = 0;
    for raw in text.split_inclusive('\n') {
        let start = at;
        at += raw.len();
        let line = raw.strip_suffix('\n').unwrap_or(raw);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if let Some(end) = here_document {
            if line == end {
                here_document = None;
            }
            continue;
        }
        // A byte order mark before the first line means nothing.
        let (line, start) = match line.strip_prefix('\u{feff}') {
            Some(rest) if start == 0 => (rest, line.len() - rest.len()),
            _ => (line, start),
        };
        let trimmed = trim(line);
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        let span = |part: &str| {
            let from = start + (part.as_ptr() as usize - line.as_ptr() as usize);
            from..from + part.len()
        };
        if let Some(name) = section(trimmed) {
            let index = *by_name.entry(name).or_insert_with(|| {
                ini.sections.push(Section {
                    name: name.to_owned(),
                    span: span(name),
                    params: Vec::new(),
                });
                ini.sections.len() - 1
            });
            current = Some(index);
            continue;
        }
        let Some((key, value)) = parameter(line) else {
            let hint =
                "write `[dataset]`, `key = value`, or put a `#` before a comment; behind a `]` there is none";
            findings.error(
                "",
                &span(trimmed),
                "this line is neither a section nor a key with a value",
                hint,
            );
            continue;
        };
        if let Some(end) = value.strip_prefix("<<") {
            findings.error(
                key,
                &span(value),
                format!("`{key}` is given as a here-document, of which sanoid makes no number, word or name"),
                "write the value behind the `=`",
            );
            here_document = Some(end);
            continue;
        }
        let Some(section) = current.and_then(|index| ini.sections.get_mut(index)) else {
            let hint = "put it below a section, as in `[tank/data]`";
            findings.error(
                key,
                &span(key),
                format!("`{key}` stands outside of every section"),
                hint,
            );
            continue;
        };
        if section.params.iter().any(|param| param.key == key) {
            findings.error(
                &format!("{}.{key}", section.name),
                &span(key),
                format!("`{key}` stands twice in `[{}]`", section.name),
                "remove one: sanoid 2.3 takes the first, earlier ones neither",
            );
            continue;
        }
        section.params.push(Param {
            key: key.to_owned(),
            key_span: span(key),
            value: value.to_owned(),
            value_span: span(value),
        });
    }
    if here_document.is_some() {
        let end = text.len();
        findings.error("", &(end..end), "the here-document is not closed", "");
    }
    ini
}

/// `[ name ]`, with nothing before or behind it.
fn section(trimmed: &str) -> Option<&str> {
    let inner = trimmed.strip_prefix('[')?.strip_suffix(']')?;
    let inner = trim(inner);
    (!inner.is_empty()).then_some(inner)
}

/// `key = value`; the key is everything before the first `=`, and not empty.
fn parameter(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once('=')?;
    let key = trim(key);
    (!key.is_empty()).then(|| (key, value.trim_start_matches(blank)))
}

/// What Perl takes for a blank in bytes.
fn blank(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\u{b}'
}

pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(blank)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_well(text: &str) -> Ini {
        let mut findings = Findings::new("sanoid.conf", text);
        let ini = read(text, &mut findings);
        findings.finish().unwrap();
        ini
    }

    #[test]
    fn sections_merge_and_comments_are_whole_lines() {
        let ini = read_well(
            "\u{feff}# one\r\n[ tank/a b ]\r\n  ; two\r\n\thourly=36 # not a comment\r\n[x]\n[tank/a b]\ndaily =  7 \n",
        );
        let params = |section: &Section| -> Vec<(String, String)> {
            (section.params.iter())
                .map(|p| (p.key.clone(), p.value.clone()))
                .collect()
        };
        assert_eq!(ini.sections.len(), 2);
        assert_eq!(ini.sections[0].name, "tank/a b");
        assert_eq!(
            params(&ini.sections[0]),
            [
                ("hourly".to_owned(), "36 # not a comment".to_owned()),
                ("daily".to_owned(), "7 ".to_owned())
            ]
        );
    }

    #[test]
    fn places_are_those_of_the_file() {
        let text = "\u{feff}[a]\n  hourly = 3\n";
        let ini = read_well(text);
        let param = &ini.sections[0].params[0];
        assert_eq!(&text[param.key_span.clone()], "hourly");
        assert_eq!(&text[param.value_span.clone()], "3");
        assert_eq!(&text[ini.sections[0].span.clone()], "a");
    }

    #[test]
    fn what_the_reader_refuses_is_named() {
        for (text, part) in [
            ("hourly = 3\n", "outside of every section"),
            ("[a]\nhourly 3\n", "neither a section nor a key"),
            ("[a] # tail\n", "neither a section nor a key"),
            ("[]\n", "neither a section nor a key"),
            ("[a]\n= 3\n", "neither a section nor a key"),
            ("[a]\nhourly = 1\nhourly = 2\n", "stands twice"),
            ("[a]\npath = <<END\nx\nEND\n", "here-document"),
            ("[a]\npath = <<END\nx\n", "not closed"),
        ] {
            let mut findings = Findings::new("sanoid.conf", text);
            read(text, &mut findings);
            let errors = findings.finish().unwrap_err().to_string();
            assert!(errors.contains(part), "{text:?}: {errors}");
        }
    }
}
