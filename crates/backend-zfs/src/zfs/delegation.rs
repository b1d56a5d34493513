//! What an unprivileged user may do with `zfs allow`: what replication needs of it and what is missing, what it should not
//! have, and whether the kernel really refuses a forced receive.
//!
//! The receiving user's grant is `receive:append`: with it the kernel itself refuses every `receive -F`, whatever has got
//! hold of the user's key. With plain `receive` a forced one deletes newer snapshots without the destroy permission
//! (TRAPS). OpenZFS before 2.3.2 knows only that.
//!
//! Promises that what isn't understood counts as not granted, and that the trial touches only datasets that it made itself.
//! Groups are the caller's to name.

mod parse;
mod trial;

use std::collections::BTreeSet;

use reseed_core::Context;
use reseed_core::error::StoreError;
use reseed_core::names::DatasetName;
use serde::Serialize;

use super::argv;
use super::tool::Tool;
use super::version::{APPENDS, Version};

pub use parse::Grants;
use parse::parse;
pub use trial::{Trial, Tried};

/// What a user does in a replication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Sends from a dataset and those below it.
    Send,
    /// Receives below a dataset.
    Receive,
}

/// A user, as `zfs allow` knows one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// Its name.
    pub user: String,
    /// Its groups' names.
    pub groups: Vec<String>,
}

/// What is asked for, and what for.
const SENDING: &[(&str, &str)] = &[
    ("send", "sending"),
    (
        "hold",
        "keeping what is sent until it has arrived; `zfs send -I` does it too, with what it reads",
    ),
    ("release", "letting go of what has arrived"),
    (
        "bookmark",
        "keeping the base of the next increment when its snapshot is pruned",
    ),
];

/// Not by force, where OpenZFS can tell; and otherwise.
const APPENDING: (&str, &str) = ("receive:append", "receiving, never by force");
const PLAINLY: (&str, &str) = ("receive", "receiving");

const RECEIVING: &[(&str, &str)] = &[
    (
        "create",
        "receiving what isn't there yet, and the datasets above it",
    ),
    (
        "mount",
        "receiving and renaming: both are refused without it, although nothing is mounted",
    ),
    (
        "canmount",
        "keeping replicas from being mounted (`canmount=noauto`)",
    ),
    ("readonly", "keeping replicas from being written to"),
    ("mountpoint", "leaving out the sender's (`-x mountpoint`)"),
    ("sharenfs", "leaving out the sender's (`-x sharenfs`)"),
    ("sharesmb", "leaving out the sender's (`-x sharesmb`)"),
    (
        "userprop",
        "what reseed notes on each snapshot: when it was taken, and its digest",
    ),
    ("rename", "setting aside a replica that can't be continued"),
];

/// What should not be there, and why.
const TOO_MUCH_TO_RECEIVE: &[(&str, &str)] = &[
    (
        "receive",
        "allows -F, which deletes newer snapshots: grant receive:append instead",
    ),
    ("destroy", "can delete replicas"),
    ("rollback", "can discard newer snapshots of replicas"),
];

/// What is right and wrong for one user in one role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// In which role.
    pub role: Role,
    /// Of which dataset, and those below it.
    pub dataset: DatasetName,
    /// Whose.
    pub user: String,
    /// What isn't granted and has to be, each with what for.
    pub missing: Vec<Finding>,
    /// What is granted and should not be, each with the reason.
    pub too_much: Vec<Finding>,
    /// The commands that make it right, for root on that host; none when all is well.
    pub commands: Vec<String>,
    /// What no grant can help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A permission, and why it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// As `zfs allow` names it.
    pub permission: String,
    /// In a few words.
    pub why: String,
}

impl Audit {
    /// Compares what is granted with what the role needs, on this version of OpenZFS. Pure.
    pub fn of(role: Role, dataset: &DatasetName, who: &Who, grants: &Grants, version: Version) -> Self {
        let at = grants.at(dataset, who);
        let below = grants.below(dataset, who);
        // A replica is below the root, and made there; what is sent may be the dataset itself.
        let has: BTreeSet<String> = at.intersection(&below).cloned().collect();
        let appends = version >= APPENDS;
        let receiving = if appends { APPENDING } else { PLAINLY };
        let needed: Vec<&(&str, &str)> = match role {
            Role::Send => SENDING.iter().collect(),
            Role::Receive => [&receiving].into_iter().chain(RECEIVING).collect(),
        };
        let granted =
            |wanted: &str| has.contains(wanted) || (wanted == APPENDING.0 && has.contains(PLAINLY.0));
        let finding = |(permission, why): &(&str, &str)| Finding {
            permission: (*permission).to_owned(),
            why: (*why).to_owned(),
        };
        let missing: Vec<Finding> = needed
            .into_iter()
            .filter(|(name, _)| !granted(name))
            .map(finding)
            .collect();
        let too_much: Vec<Finding> = match role {
            Role::Send => Vec::new(),
            Role::Receive => TOO_MUCH_TO_RECEIVE
                .iter()
                .filter(|(name, _)| appends || *name != PLAINLY.0)
                .filter(|(name, _)| at.contains(*name) || below.contains(*name))
                .map(finding)
                .collect(),
        };
        let list = |of: &[Finding]| {
            let names: Vec<&str> = of.iter().map(|one| one.permission.as_str()).collect();
            names.join(",")
        };
        // Names may have spaces, and no quotes.
        let name = match dataset.as_str().contains(' ') {
            true => format!("'{dataset}'"),
            false => dataset.to_string(),
        };
        let mut commands = Vec::new();
        let mut grant: Vec<Finding> = missing.clone();
        if too_much.iter().any(|one| one.permission == PLAINLY.0) && !has.contains(APPENDING.0) {
            grant.insert(0, finding(&APPENDING));
        }
        if !grant.is_empty() {
            commands.push(format!("zfs allow -u {} {} {name}", who.user, list(&grant)));
        }
        if !too_much.is_empty() {
            commands.push(format!("zfs unallow -u {} {} {name}", who.user, list(&too_much)));
        }
        let note = (role == Role::Receive && !appends).then(|| {
            format!(
                "OpenZFS {version} can't refuse a forced receive, which deletes newer snapshots: from {APPENDS} on it can, by receive:append"
            )
        });
        Self {
            role,
            note,
            dataset: dataset.clone(),
            user: who.user.clone(),
            missing,
            too_much,
            commands,
        }
    }

    /// Whether there is nothing to tell.
    pub fn is_fine(&self) -> bool {
        self.missing.is_empty() && self.too_much.is_empty()
    }
}

/// Asks what is granted on a dataset.
pub(crate) async fn grants(tool: &Tool, cx: &Context, dataset: &DatasetName) -> Result<Grants, StoreError> {
    let what = format!("can't tell what is allowed on {dataset}");
    tool.read(cx, argv::allowed(dataset), &what, parse).await
}

#[cfg(test)]
mod tests {
    use super::super::argv::tests::ds;
    use super::*;

    fn who() -> Who {
        Who {
            user: "repl".to_owned(),
            groups: vec!["backup".to_owned()],
        }
    }

    fn audit(role: Role, dataset: &str, text: &str) -> Audit {
        audit_on(APPENDS, role, dataset, text)
    }

    fn audit_on(version: Version, role: Role, dataset: &str, text: &str) -> Audit {
        Audit::of(
            role,
            &ds(dataset),
            &who(),
            &parse(text.as_bytes()).unwrap(),
            version,
        )
    }

    fn names(of: &[Finding]) -> Vec<&str> {
        of.iter().map(|one| one.permission.as_str()).collect()
    }

    #[test]
    fn nothing_granted_is_all_missing_with_one_command() {
        let found = audit(Role::Send, "tank/svc", "");
        assert_eq!(names(&found.missing), ["send", "hold", "release", "bookmark"]);
        assert_eq!(
            found.commands,
            ["zfs allow -u repl send,hold,release,bookmark tank/svc"]
        );
        let found = audit(Role::Receive, "back/up", "");
        assert_eq!(found.missing.len(), 1 + RECEIVING.len());
        assert!(!found.is_fine());
    }

    #[test]
    fn plain_receive_is_too_much_and_append_takes_its_place() {
        let text = "---- Permissions on back/up -----\nLocal+Descendent permissions:\n\tuser repl \
                    canmount,create,mount,mountpoint,readonly,receive,rename,sharenfs,sharesmb,userprop\n";
        let found = audit(Role::Receive, "back/up", text);
        assert_eq!(
            (names(&found.missing), names(&found.too_much)),
            (vec![], vec!["receive"])
        );
        assert_eq!(
            found.commands,
            [
                "zfs allow -u repl receive:append back/up",
                "zfs unallow -u repl receive back/up"
            ]
        );
        let right = text.replace("receive,", "receive:append,");
        assert!(audit(Role::Receive, "back/up", &right).is_fine());
    }

    /// `zfs allow` of 2.1 to 2.3.1 refuses `receive:append`, and whoever only took `receive` away would have nothing.
    #[test]
    fn where_append_is_unknown_plain_receive_is_what_there_is() {
        let text = "---- Permissions on back/up -----\nLocal+Descendent permissions:\n\tuser repl \
                    canmount,create,mount,mountpoint,readonly,receive,rename,sharenfs,sharesmb,userprop\n";
        for (minor, patch) in [(1, 11), (2, 9), (3, 1)] {
            let version = Version {
                major: 2,
                minor,
                patch,
            };
            let found = audit_on(version, Role::Receive, "back/up", text);
            assert!(found.is_fine() && found.commands.is_empty(), "{found:?}");
            assert!(found.note.unwrap().contains("forced receive"));
            let nothing = audit_on(version, Role::Receive, "back/up", "");
            assert_eq!(names(&nothing.missing)[0], "receive");
            assert!(!nothing.commands[0].contains("append"), "{nothing:?}");
            // What else is too much still is.
            let more = text.replace("create,", "create,destroy,");
            let found = audit_on(version, Role::Receive, "back/up", &more);
            assert_eq!(names(&found.too_much), ["destroy"]);
            assert_eq!(audit_on(version, Role::Send, "back/up", "").note, None);
        }
        assert_eq!(audit(Role::Receive, "back/up", text).note, None);
    }

    #[test]
    fn what_is_granted_here_alone_is_not_granted_below() {
        let here =
            "---- Permissions on tank/svc ----\nLocal permissions:\n\tuser repl bookmark,hold,release,send\n";
        assert_eq!(audit(Role::Send, "tank/svc", here).missing.len(), 4);
        let above = "---- Permissions on tank ----\nLocal+Descendent permissions:\n\tgroup backup bookmark,hold,release,send\n";
        assert!(audit(Role::Send, "tank/svc", above).is_fine());
    }
}
