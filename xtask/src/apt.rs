//! Sources of packages that a machine doesn't have yet, derived from those that it has.
//!
//! Reads both of apt's formats. Names no host: a mirror, a key or a proxy that serves the machine's own packages serves
//! the others of the same archive too. Pure; nothing here reads or writes a file.

/// One entry of sources.list, or one stanza of a `.sources` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    uris: String,
    suites: Vec<String>,
    components: Vec<String>,
    /// Everything else, such as `Signed-By`, as fields of a stanza.
    options: Vec<(String, String)>,
}

/// What has to be there: of a suite, these components.
fn wanted(suite: &str) -> [(String, &'static [&'static str]); 2] {
    [
        (suite.to_owned(), &["contrib"]),
        (format!("{suite}-backports"), &["main", "contrib"]),
    ]
}

/// The text of a `.sources` file with what is missing for packages of `contrib` and of backports; `None` when nothing is.
pub(crate) fn missing(sources: &[Source], codename: &str) -> Result<Option<String>, String> {
    let (base, suite) = base(sources, codename)?;
    let mut text = String::new();
    for (suite, components) in wanted(suite) {
        let has = |component: &&str| {
            sources.iter().any(|source| {
                source.suites.contains(&suite) && source.components.iter().any(|c| c == component)
            })
        };
        let lacking: Vec<&str> = components
            .iter()
            .copied()
            .filter(|component| !has(component))
            .collect();
        if !lacking.is_empty() {
            text.push_str(&stanza(base, &suite, &lacking));
        }
    }
    Ok((!text.is_empty()).then_some(text))
}

/// The text of a `.sources` file with another release of the archive that this machine's own is from.
pub(crate) fn release(sources: &[Source], codename: &str, release: &str) -> Result<String, String> {
    let (base, _) = base(sources, codename)?;
    Ok(stanza(base, release, &["main"]))
}

/// The source of the machine's own release, and what it calls it.
fn base<'a>(sources: &'a [Source], codename: &str) -> Result<(&'a Source, &'a String), String> {
    sources
        .iter()
        .find_map(|source| {
            let suite = source
                .suites
                .iter()
                .find(|suite| *suite == codename || *suite == "stable")?;
            let main = source.components.iter().any(|component| component == "main");
            main.then_some((source, suite))
        })
        .ok_or_else(|| {
            format!("none of apt's sources has {codename} main, so nothing can be derived from it")
        })
}

/// As the base in everything but suite and components: apt refuses two keys for one archive.
fn stanza(base: &Source, suite: &str, components: &[&str]) -> String {
    let mut text = format!(
        "Types: deb\nURIs: {}\nSuites: {suite}\nComponents: {}\n",
        base.uris,
        components.join(" ")
    );
    for (name, value) in &base.options {
        text.push_str(&format!("{name}: {value}\n"));
    }
    text.push('\n');
    text
}

/// Reads a `.sources` file. A stanza that is switched off or has no binary packages is left out.
pub(crate) fn deb822(text: &str) -> Vec<Source> {
    let plain: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    plain
        .split(|line| line.trim().is_empty())
        .filter_map(|lines| stanza_of(&fields(lines)))
        .collect()
}

fn fields(lines: &[&str]) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in lines {
        if line.starts_with([' ', '\t']) {
            // A key that stands in the stanza itself: its lines are kept as they are.
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    fields
}

fn stanza_of(fields: &[(String, String)]) -> Option<Source> {
    let field = |wanted: &str| {
        let found = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.as_str())
    };
    let words = |value: &str| value.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let off = matches!(field("Enabled"), Some("no" | "false" | "0"));
    if off || !words(field("Types")?).contains(&"deb".to_owned()) {
        return None;
    }
    let own = ["Types", "URIs", "Suites", "Components", "Enabled"];
    Some(Source {
        uris: words(field("URIs")?).join(" "),
        suites: words(field("Suites")?),
        components: words(field("Components").unwrap_or_default()),
        options: fields
            .iter()
            .filter(|(name, _)| !own.iter().any(|own| own.eq_ignore_ascii_case(name)))
            .cloned()
            .collect(),
    })
}

/// Reads sources.list: `deb [option=value ...] URI SUITE COMPONENT...`, a line each.
pub(crate) fn one_line(text: &str) -> Vec<Source> {
    text.lines().filter_map(entry).collect()
}

fn entry(line: &str) -> Option<Source> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let mut rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let mut options = Vec::new();
    if let Some((inside, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        options = inside
            .split_whitespace()
            .filter_map(|option| option.split_once('='))
            .map(|(name, value)| (field_name(name), value.replace(',', " ")))
            .collect();
        rest = after;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source {
        uris: words.next()?,
        suites: vec![words.next()?],
        components: words.collect(),
        options,
    })
}

/// The field of a stanza for an option of an entry: `signed-by` is `Signed-By`, `arch` is `Architectures`.
fn field_name(option: &str) -> String {
    match option.to_ascii_lowercase().as_str() {
        "arch" => "Architectures".to_owned(),
        "lang" => "Languages".to_owned(),
        "target" => "Targets".to_owned(),
        other => other
            .split('-')
            .map(|part| {
                let (first, rest) = part.split_at(part.len().min(1));
                first.to_ascii_uppercase() + rest
            })
            .collect::<Vec<_>>()
            .join("-"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZAS: &str = "Types: deb\n# http://snapshot.example/\nURIs: http://mirror.example/debian\n\
        Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /usr/share/keyrings/a.gpg\n\n\
        Types: deb\nURIs: http://mirror.example/security\nSuites: bookworm-security\nComponents: main\n";

    #[test]
    fn contrib_and_backports_come_from_the_archive_of_the_machine() {
        let text = missing(&deb822(STANZAS), "bookworm").unwrap().unwrap();
        assert_eq!(
            text,
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: contrib\n\
             Signed-By: /usr/share/keyrings/a.gpg\n\n\
             Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-backports\nComponents: main contrib\n\
             Signed-By: /usr/share/keyrings/a.gpg\n\n"
        );
    }

    #[test]
    fn with_what_was_derived_nothing_is_missing() {
        let mut sources = deb822(STANZAS);
        let text = missing(&sources, "bookworm").unwrap().unwrap();
        sources.extend(deb822(&text));
        assert_eq!(missing(&sources, "bookworm"), Ok(None));
    }

    #[test]
    fn a_newer_release_comes_from_the_archive_of_the_machine() {
        let text = release(&deb822(STANZAS), "bookworm", "trixie").unwrap();
        assert_eq!(
            text,
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: trixie\nComponents: main\n\
             Signed-By: /usr/share/keyrings/a.gpg\n\n"
        );
        assert!(release(&deb822(STANZAS), "sid", "trixie").is_err());
    }

    #[test]
    fn the_old_format_is_read_with_its_options() {
        let sources = one_line(
            "# a comment\ndeb-src http://m.example/debian bookworm main\n\
             deb [arch=amd64,arm64 signed-by=/k.gpg trusted=yes] http://m.example/debian bookworm main contrib # old\n",
        );
        assert_eq!(sources.len(), 1);
        assert_eq!(
            missing(&sources, "bookworm").unwrap().unwrap(),
            "Types: deb\nURIs: http://m.example/debian\nSuites: bookworm-backports\nComponents: main contrib\n\
             Architectures: amd64 arm64\nSigned-By: /k.gpg\nTrusted: yes\n\n"
        );
    }

    #[test]
    fn a_key_within_a_stanza_is_kept_line_by_line() {
        let text = "Types: deb deb-src\nURIs: http://m.example\nSuites: stable\nComponents: main contrib\n\
                    Signed-By:\n -----BEGIN\n .\n abc\n";
        let derived = missing(&deb822(text), "bookworm").unwrap().unwrap();
        assert!(
            derived.ends_with(
                "Suites: stable-backports\nComponents: main contrib\nSigned-By: \n -----BEGIN\n .\n abc\n\n"
            ),
            "{derived}"
        );
    }

    #[test]
    fn other_archives_and_those_switched_off_are_no_base() {
        let text = "Types: deb\nURIs: http://x.example\nSuites: nodistro\nComponents: main\n\n\
                    Enabled: no\nTypes: deb\nURIs: http://m.example\nSuites: bookworm\nComponents: main\n";
        let why = missing(&deb822(text), "bookworm").unwrap_err();
        assert!(why.contains("bookworm main"), "{why}");
    }
}
