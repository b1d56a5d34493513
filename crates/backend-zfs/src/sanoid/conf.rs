//! sanoid.conf, read and checked: every key is one of sanoid's, every value one that sanoid understands as it stands
//! there.
//!
//! Stricter than sanoid where that reads something into a typing error: to Perl, `autosnap = no # for now` is yes, and
//! `daily =` is 0, which removes every daily snapshot. Which dataset gets which values is [`resolve`](super::resolve)'s
//! matter.

use std::ops::Range;

use reseed_core::config::{ConfigErrors, Diagnostic, Findings};

use super::ini::{self, Ini, Param};
use super::keys::{self, KEYS, Key, Shape};

/// The largest file that is read.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;

/// A sanoid.conf without errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SanoidConf {
    pub(super) sections: Vec<Section>,
}

/// A section and what is set in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) set: Vec<Setting>,
}

/// A key that is set, with its value without blanks around it, as sanoid 2.3 takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) key: &'static str,
    pub(super) value: String,
    pub(super) line: usize,
}

/// A sanoid.conf and what is probably not meant in it.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// The configuration.
    pub conf: SanoidConf,
    /// Warnings, in the order of the file.
    pub warnings: Vec<Diagnostic>,
}

impl Section {
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.set
            .iter()
            .find(|setting| setting.key == key)
            .map(|setting| setting.value.as_str())
    }

    pub(super) fn is_template(&self) -> bool {
        self.name.starts_with("template_")
    }
}

impl SanoidConf {
    pub(super) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// Whether what it means depends on which datasets there are.
    pub fn needs_datasets(&self) -> bool {
        (self.sections.iter()).any(|section| {
            !section.is_template()
                && (Recursion::of(section) != Recursion::No
                    || section.get("skip_children").is_some_and(is_true))
        })
    }
}

/// What `recursive` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recursion {
    No,
    Yes,
    Zfs,
}

impl Recursion {
    pub(super) fn of(section: &Section) -> Self {
        match section.get("recursive") {
            Some(text) if text.to_ascii_lowercase().contains("zfs") => Self::Zfs,
            Some(text) if is_true(text) => Self::Yes,
            _ => Self::No,
        }
    }
}

pub(super) fn is_true(text: &str) -> bool {
    keys::toggle(text) == Some(true)
}

/// The templates that a section names, from left to right.
pub(super) fn templates(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(ini::trim).filter(|name| !name.is_empty())
}

/// Reads and checks. `file` is what messages call it.
///
/// # Errors
/// All that is wrong with it.
pub fn parse(text: &str, file: &str) -> Result<Parsed, ConfigErrors> {
    let mut findings = Findings::new(file, text);
    if text.len() > MAX_BYTES {
        findings.error(
            "",
            &(0..0),
            "the file is larger than 4 MiB",
            "is this the right file?",
        );
        let sections = Vec::new();
        return findings.finish().map(|warnings| Parsed {
            conf: SanoidConf { sections },
            warnings,
        });
    }
    let ini = ini::read(text, &mut findings);
    if ini.sections.is_empty() {
        let hint = "is this the right file? sanoid's is /etc/sanoid/sanoid.conf";
        findings.error("", &(0..0), "there is no section in this file", hint);
    }
    let lines = Lines::of(text);
    let sections = (ini.sections.iter())
        .map(|section| Section {
            name: section.name.clone(),
            line: lines.line(&section.span),
            set: (section.params.iter())
                .filter_map(|param| setting(&section.name, param, &lines, &mut findings))
                .collect(),
        })
        .collect();
    let conf = SanoidConf { sections };
    warn_of_templates(&ini, &conf, &mut findings);
    let warnings = findings.finish()?;
    Ok(Parsed { conf, warnings })
}

fn setting(section: &str, param: &Param, lines: &Lines, findings: &mut Findings<'_>) -> Option<Setting> {
    let at = format!("{section}.{}", param.key);
    let Some(key) = keys::find(&param.key) else {
        let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
        let message = format!(
            "sanoid has no setting {:?}, and stops at one in `[{section}]`",
            param.key
        );
        let hint = Findings::suggestion(&param.key, "settings", &names);
        findings.error(&at, &param.key_span, message, &hint);
        return None;
    };
    let value = ini::trim(&param.value);
    let span = match value.is_empty() {
        true => &param.key_span,
        false => &(param.value_span.start..param.value_span.start + value.len()),
    };
    if let Err((message, hint)) = check(key, value) {
        findings.error(&at, span, message, hint);
        return None;
    }
    if value.len() < param.value.len() && matches!(key.shape, Shape::Toggle | Shape::Recursive) {
        let message = format!("there are blanks behind `{} = {value}`", param.key);
        let hint = match is_true(value) {
            true => "remove them: sanoid before 2.3 does not know the word with them",
            false => "remove them: sanoid before 2.3 takes it for yes with them",
        };
        findings.warn(&at, span, message, hint);
    }
    Some(Setting {
        key: key.name,
        value: value.to_owned(),
        line: lines.line(&param.key_span),
    })
}

type Refusal = (String, &'static str);

fn check(key: &Key, value: &str) -> Result<(), Refusal> {
    let name = key.name;
    match key.shape {
        Shape::Text => Ok(()),
        Shape::Number(least, most) => {
            if value.is_empty() {
                return Err((
                    format!("`{name}` has no value, which sanoid takes for 0"),
                    "give a number, or remove the line for the default",
                ));
            }
            let digits = value.chars().all(|c| c.is_ascii_digit());
            match value.parse::<u32>() {
                Ok(number) if digits && (least..=most).contains(&number) => Ok(()),
                Ok(_) if digits => Err((
                    format!("`{name}` is {value}, and has to be from {least} to {most}"),
                    "",
                )),
                _ => Err((
                    format!("`{name}` is {value:?}, not a whole number"),
                    "a comment needs a line of its own; a number stands alone",
                )),
            }
        }
        Shape::Toggle => match keys::toggle(value) {
            Some(_) => Ok(()),
            None => Err(no_word(
                name,
                value,
                "write yes or no; a comment needs a line of its own",
            )),
        },
        Shape::Recursive => match keys::toggle(value) {
            None if !value.to_ascii_lowercase().contains("zfs") => Err((
                format!("`{name}` is {value:?}, which sanoid takes for no"),
                "write yes, no or zfs",
            )),
            _ => Ok(()),
        },
        Shape::Age => {
            let digits = value.trim_end_matches(|c: char| "yYwWdDhHmMsS".contains(c));
            let well = !digits.is_empty()
                && digits.chars().all(|c| c.is_ascii_digit())
                && value.len() - digits.len() <= 1;
            match well {
                true => Ok(()),
                false => Err((
                    format!("`{name}` is {value:?}, not an age as `90m` or `2d`"),
                    "a number and one of y, w, d, h, m, s",
                )),
            }
        }
    }
}

fn no_word(name: &str, value: &str, hint: &'static str) -> Refusal {
    (
        format!("`{name}` is {value:?}, no word of sanoid's for yes or no, so sanoid takes it for yes"),
        hint,
    )
}

/// sanoid passes over all of these in silence, or with a line in a log.
fn warn_of_templates(ini: &Ini, conf: &SanoidConf, findings: &mut Findings<'_>) {
    let known: Vec<&str> = (conf.sections.iter())
        .filter_map(|section| section.name.strip_prefix("template_"))
        .collect();
    for section in &ini.sections {
        let template = section.name.starts_with("template_");
        if !template && section.name.starts_with("template") {
            findings.warn(
                &section.name,
                &section.span,
                format!(
                    "`[{}]` is no template and, because of its name, never acted on",
                    section.name
                ),
                "a template's name begins with `template_`",
            );
        }
        for param in &section.params {
            let at = format!("{}.{}", section.name, param.key);
            match param.key.as_str() {
                "use_template" | "recursive" | "skip_children" if template => findings.warn(
                    &at,
                    &param.key_span,
                    format!("`{}` does nothing in a template", param.key),
                    "set it in the sections that use the template",
                ),
                "use_template" => {
                    for name in templates(&param.value).filter(|name| !known.contains(name)) {
                        findings.warn(
                            &at,
                            &param.value_span,
                            format!("there is no `[template_{name}]`, and sanoid says nothing about it"),
                            &Findings::suggestion(name, "templates", &known),
                        );
                    }
                }
                _ => {}
            }
        }
    }
}

/// Where lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(
            std::iter::once(0)
                .chain(text.match_indices('\n').map(|(at, _)| at + 1))
                .collect(),
        )
    }

    /// From 1.
    fn line(&self, span: &Range<usize>) -> usize {
        self.0.partition_point(|&start| start <= span.start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn errors(text: &str) -> String {
        parse(text, "sanoid.conf").unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_place() {
        assert_eq!(
            errors("[tank/data]\n  use_template = a\n  huorly = 36\n"),
            "error: sanoid has no setting \"huorly\", and stops at one in `[tank/data]`\n\
             \x20--> sanoid.conf:3:3\n\
             \x20 |\n\
             3 |   huorly = 36\n\
             \x20 |   ^^^^^^\n\
             \x20 = hint: did you mean `hourly`?\n\n\
             1 error"
        );
    }

    #[test]
    fn what_sanoid_would_misread_is_an_error() {
        for (line, part) in [
            ("autosnap = no # for now", "takes it for yes"),
            ("autoprune = nein", "takes it for yes"),
            ("daily =", "takes for 0"),
            ("daily = 7 # a week", "not a whole number"),
            ("daily = -1", "not a whole number"),
            ("daily = 1.5", "not a whole number"),
            ("daily = 99999999999999", "not a whole number"),
            ("daily = 100001", "from 0 to 100000"),
            ("prune_defer = 80%", "not a whole number"),
            ("prune_defer = 101", "from 0 to 100"),
            ("frequent_period = 0", "from 1 to 59"),
            ("recursive = maybe", "takes for no"),
            ("hourly_warn = 90x", "not an age"),
            ("Hourly = 3", "did you mean `hourly`"),
        ] {
            let errors = errors(&format!("[a]\n{line}\n"));
            assert!(errors.contains(part), "{line}: {errors}");
        }
        assert!(errors("# nothing\n").contains("no section"));
    }

    #[test]
    fn what_sanoid_passes_over_is_a_warning() {
        let text = "[a]\nuse_template = prod, productoin\nautosnap = no \n[template_prod]\nrecursive = yes\n\
                    [template_production]\n[templates]\n";
        let warnings: Vec<String> = (parse(text, "f").unwrap().warnings.iter())
            .map(|w| w.message.clone())
            .collect();
        assert_eq!(
            warnings,
            [
                "there is no `[template_productoin]`, and sanoid says nothing about it",
                "there are blanks behind `autosnap = no`",
                "`recursive` does nothing in a template",
                "`[templates]` is no template and, because of its name, never acted on",
            ]
        );
    }

    fn line() -> impl Strategy<Value = String> {
        let key = proptest::sample::select(KEYS.iter().map(|key| key.name).collect::<Vec<_>>());
        prop_oneof![
            "\\PC{0,30}",
            "[\\[\\]=#; <\\t\\r\u{feff}a-z0-9_]{0,20}",
            (key, "\\PC{0,12}").prop_map(|(key, value)| format!("{key} = {value}")),
            "\\[[a-z_/ ]{0,12}\\]".prop_map(|section| section),
        ]
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(lines in proptest::collection::vec(line(), 0..12), end in "[\r\n]{1,2}") {
            let text = lines.join(&end);
            match parse(&text, "sanoid.conf") {
                Ok(parsed) => prop_assert!(!parsed.conf.sections.is_empty()),
                Err(errors) => prop_assert!(!errors.to_string().is_empty()),
            }
        }
    }
}
