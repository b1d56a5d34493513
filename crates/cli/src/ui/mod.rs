//! What a person or a log sees. Results go to standard output, everything else to standard error.

mod lines;
mod table;
mod terminal;

use std::io::IsTerminal as _;
use std::sync::Arc;

use reseed_core::event::{EventSink, Silent};

pub(crate) use lines::Lines;
pub(crate) use table::Table;
pub(crate) use terminal::Terminal;

use crate::args::{Cli, Colour};

/// How to show things.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ui {
    /// One JSON document as the result.
    pub(crate) json: bool,
    /// Colour in the result.
    pub(crate) colour: bool,
    quiet: bool,
}

/// Under systemd standard error goes to the journal, which takes a line's priority from `<N>` (sd-daemon(3)).
fn under_journald() -> bool {
    std::env::var_os("JOURNAL_STREAM").is_some() && !std::io::stderr().is_terminal()
}

impl Ui {
    pub(crate) fn new(cli: &Cli) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let colour = match cli.color {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => wanted && std::io::stdout().is_terminal(),
        };
        Self {
            json: cli.json,
            colour,
            quiet: cli.quiet,
        }
    }

    /// Shows nothing.
    pub(crate) fn silent() -> Self {
        Self {
            json: false,
            colour: false,
            quiet: true,
        }
    }

    /// Who shows a run's events.
    pub(crate) fn sink(&self) -> Arc<dyn EventSink> {
        if self.quiet {
            Arc::new(Silent)
        } else if std::io::stderr().is_terminal() {
            Arc::new(Terminal::new())
        } else {
            Arc::new(Lines::new(under_journald()))
        }
    }

    /// Paints a word for the result.
    pub(crate) fn paint(&self, mood: Mood, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match mood {
            Mood::Good => "32",
            Mood::Warn => "33",
            Mood::Bad => "31",
            Mood::Dim => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// What a word means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Good,
    Warn,
    Bad,
    Dim,
}

/// Bytes for people, in units of 1024.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut whole = bytes;
    let mut rest = 0;
    while whole >= 1024 && unit + 1 < UNITS.len() {
        rest = whole % 1024;
        whole /= 1024;
        unit += 1;
    }
    if unit == 0 {
        format!("{whole} B")
    } else {
        format!("{whole}.{} {}", rest * 10 / 1024, UNITS[unit])
    }
}

/// A span for people: the two largest units.
pub(crate) fn span(seconds: i64) -> String {
    match seconds.max(0) {
        s if s < 60 => format!("{s} s"),
        s if s < 3600 => format!("{} min", s / 60),
        s if s < 86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        s => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// Text that came from outside, for a terminal or a log: control characters can't move the cursor or forge a line.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect::<Vec<_>>()
            } else {
                vec![c]
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16383.9 PiB");
        assert_eq!(span(59), "59 s");
        assert_eq!(span(3 * 3600 + 120), "3 h 2 min");
        assert_eq!(span(200_000), "2 d 7 h");
        assert_eq!(printable("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
    }
}
