//! The unit whose data a command takes away from under it.

use reseed_core::error::{OpError, OpKind};
use serde_json::{Value, json};

use crate::session::Session;

/// The unit that uses the data, and what is known of it.
#[derive(Debug)]
pub(super) struct Unit {
    service: String,
    name: Option<String>,
    state: Option<String>,
}

impl Unit {
    pub(super) async fn of(session: &Session, service: &str) -> Result<Self, OpError> {
        let name = session.config.service(service)?.unit.clone();
        let state = match &name {
            Some(name) => session.unit_state(name).await,
            None => None,
        };
        Ok(Self {
            service: service.to_owned(),
            name,
            state,
        })
    }

    /// Whether it is known to run, or to be about to.
    pub(super) fn runs(&self) -> bool {
        let runs = ["active", "reloading", "activating", "deactivating", "refreshing"];
        self.state.as_deref().is_some_and(|state| runs.contains(&state))
    }

    pub(super) fn shown(&self) -> String {
        match (&self.name, &self.state) {
            (Some(name), Some(state)) if self.runs() => {
                format!("{name} is {state}; it must be stopped first\n")
            }
            (Some(name), Some(state)) => format!("{name} is {state}\n"),
            (Some(name), None) => {
                format!("warning: {name} must be stopped; whether it is can't be told here\n")
            }
            (None, _) => format!(
                "warning: {} must be stopped; no unit is configured for it, so nobody looks\n",
                self.service
            ),
        }
    }

    pub(super) fn refusal(&self) -> OpError {
        let name = self.name.as_deref().unwrap_or(&self.service);
        let what = format!("{name} runs, and would lose what it writes");
        OpError::new(OpKind::Blocked, what).hint(format!("`systemctl stop {name}`, then run it again"))
    }

    /// # Errors
    /// `Blocked` where it is known to run.
    pub(super) fn must_not_run(&self) -> Result<(), OpError> {
        match self.runs() {
            true => Err(self.refusal()),
            false => Ok(()),
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({ "name": self.name, "state": self.state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: Option<&str>, state: Option<&str>) -> Unit {
        Unit {
            service: "app".to_owned(),
            name: name.map(str::to_owned),
            state: state.map(str::to_owned),
        }
    }

    #[test]
    fn a_unit_that_runs_is_refused_and_one_that_nobody_knows_is_warned_of() {
        for state in ["active", "activating", "deactivating", "reloading"] {
            assert!(unit(Some("app.service"), Some(state)).runs(), "{state}");
        }
        for state in ["inactive", "failed"] {
            let unit = unit(Some("app.service"), Some(state));
            assert!(!unit.runs());
            assert_eq!(unit.shown(), format!("app.service is {state}\n"));
        }
        let unknown = unit(Some("app.service"), None);
        assert!(
            !unknown.runs()
                && unknown
                    .shown()
                    .starts_with("warning: app.service must be stopped")
        );
        assert!(
            unit(None, None)
                .shown()
                .starts_with("warning: app must be stopped")
        );
    }
}
