//! sanoid.conf for the real sanoid, from what is declared here.
//!
//! Promises that sanoid reads exactly what was given, whatever its defaults are: every section gives every value, none
//! uses templates, and recursion stands only where one snapshot is to cover all that is below. A file of defaults is rendered beside it:
//! upstream's sanoid looks for one in its configuration directory and refuses every key that isn't in it; Debian's takes
//! its own. Undecided types (`None`) are neither taken nor pruned: 0 would prune them all.

use std::fmt::Write as _;

use reseed_core::retention::sanoid::Kind;

use super::keys::KEYS;
use super::resolve::Managed;

/// The most that one type can be asked to keep. As a number of years it is beyond every clock.
const ALL: u32 = 100_000;

/// What a run is for. A type that is not declared has to be 0 for taking and unlimited for pruning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Taking snapshots.
    Take,
    /// Pruning them.
    Prune,
}

/// The two files of sanoid's configuration directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// `sanoid.conf`.
    pub conf: String,
    /// `sanoid.defaults.conf`.
    pub defaults: String,
}

/// A dataset that sanoid can't be told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unrenderable {
    /// The dataset.
    pub dataset: String,
    /// Why.
    pub why: &'static str,
}

impl std::fmt::Display for Unrenderable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sanoid can't manage {:?}: {}", self.dataset, self.why)
    }
}

impl std::error::Error for Unrenderable {}

/// Renders what is managed for one purpose. The other purpose is switched off in it.
///
/// # Errors
/// The first dataset whose name sanoid would misread.
pub fn render(managed: &[Managed], purpose: Purpose) -> Result<Rendered, Unrenderable> {
    let mut conf = String::from("# Written by reseed at every run. Changes here are lost.\n");
    for one in managed {
        sayable(&one.dataset)?;
        let _ = writeln!(conf, "\n[{}]", one.dataset);
        let (take, prune) = match purpose {
            Purpose::Take => (one.take, false),
            Purpose::Prune => (false, one.prune),
        };
        let word = |yes: bool| if yes { "yes" } else { "no" };
        let _ = writeln!(conf, "autosnap = {}\nautoprune = {}", word(take), word(prune));
        if one.with_children && take {
            conf.push_str("recursive = zfs\n");
        }
        for kind in Kind::ALL {
            let undeclared = match purpose {
                Purpose::Take => 0,
                Purpose::Prune => ALL,
            };
            let wanted = one.policy.wanted(kind).unwrap_or(undeclared);
            let _ = writeln!(conf, "{kind} = {wanted}");
        }
        let _ = writeln!(
            conf,
            "frequent_period = {}",
            one.policy.frequent_period.unwrap_or(15)
        );
        let _ = writeln!(conf, "prune_defer = {}", one.policy.prune_defer.unwrap_or(0));
    }
    Ok(Rendered {
        conf,
        defaults: defaults(),
    })
}

fn defaults() -> String {
    let mut text = String::from("[version]\nversion = 2\n\n[template_default]\n");
    for key in KEYS {
        let _ = writeln!(text, "{} = {}", key.name, key.default);
    }
    text
}

/// sanoid runs `zfs get` through a shell with the names as they stand, and has a meaning of its own for some sections.
fn sayable(dataset: &str) -> Result<(), Unrenderable> {
    let refuse = |why| {
        Err(Unrenderable {
            dataset: dataset.to_owned(),
            why,
        })
    };
    if dataset.starts_with("template") {
        return refuse("it takes every section whose name begins with `template` for a template");
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "/_-.:".contains(c);
    if dataset.is_empty() || dataset.starts_with('-') || !dataset.chars().all(plain) {
        return refuse(
            "its name goes through a shell there, and has other characters than letters, digits, / _ - . :",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use reseed_core::retention::sanoid::Policy;

    use super::super::conf::parse;
    use super::*;

    fn managed(dataset: &str, policy: Policy) -> Managed {
        Managed {
            dataset: dataset.to_owned(),
            section: dataset.to_owned(),
            take: true,
            prune: true,
            with_children: false,
            policy,
        }
    }

    #[test]
    fn what_is_rendered_reads_back_as_the_same() {
        let policy = Policy {
            frequently: Some(1),
            hourly: Some(2),
            daily: Some(3),
            weekly: Some(4),
            monthly: Some(5),
            yearly: Some(6),
            frequent_period: Some(7),
            prune_defer: Some(8),
        };
        let given = managed("tank/a:b", policy);
        let rendered = render(std::slice::from_ref(&given), Purpose::Prune).unwrap();
        let parsed = parse(&rendered.conf, "sanoid.conf").unwrap();
        assert_eq!(parsed.warnings, []);
        let read = parsed.conf.resolve(&[]);
        assert_eq!(read, [Managed { take: false, ..given }]);
        // The defaults are a file of the same form, with every key.
        assert!(
            parse(
                &rendered.defaults.replace("[version]\nversion = 2\n", ""),
                "defaults"
            )
            .is_ok()
        );
    }

    #[test]
    fn an_undeclared_type_is_neither_taken_nor_pruned() {
        let given = [managed("tank", Policy::default())];
        assert!(
            render(&given, Purpose::Take)
                .unwrap()
                .conf
                .contains("\nhourly = 0\n")
        );
        assert!(
            render(&given, Purpose::Prune)
                .unwrap()
                .conf
                .contains("\nhourly = 100000\n")
        );
    }

    #[test]
    fn names_that_a_shell_would_read_are_refused() {
        for name in [
            "tank/a b",
            "tank/a;b",
            "tank/$(x)",
            "template_x",
            "templates/a",
            "",
            "-r",
            "tank/a|b",
        ] {
            assert!(
                render(&[managed(name, Policy::default())], Purpose::Take).is_err(),
                "{name}"
            );
        }
    }
}
