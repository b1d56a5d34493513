//! What taking over gives, wherever it comes from: a configuration, and a list of what could not be carried over.

use std::fmt::Write as _;

use reseed_core::config::{self, ConfigErrors, Format};
use serde::Serialize;

/// A configuration that was made from something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// The configuration, as TOML. It has been read back without an error.
    pub toml: String,
    /// How many datasets are in it.
    pub datasets: usize,
    /// What is not in it.
    pub left_out: Vec<LeftOut>,
}

/// Something that could not be carried over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// What: `[tank/data] pruning_script = /bin/x (line 12)`.
    pub what: String,
    /// Why.
    pub why: String,
}

/// Why a dataset that reseed made beside a target isn't taken over: declared, it would be made again, empty and without its
/// record, when it is gone.
pub(crate) const RESEEDS: &str = "it is reseed's own: staged, set aside or quarantined";

impl LeftOut {
    pub(crate) fn new(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            why: why.into(),
        }
    }
}

impl Imported {
    /// Checks that what was made is a configuration.
    pub(crate) fn checked(
        toml: String,
        datasets: usize,
        left_out: Vec<LeftOut>,
    ) -> Result<Self, ConfigErrors> {
        // The machine's name is of no matter here, and one is needed.
        config::parse_on(
            &toml,
            Format::Toml,
            "the imported configuration",
            Some("imported"),
        )?;
        Ok(Self {
            toml,
            datasets,
            left_out,
        })
    }
}

/// A TOML text in quotes.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
