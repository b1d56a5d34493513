//! [`OffsitePruner`]: what may remove points from an off-site repository.
//!
//! It is a role of its own beside [`OffsiteRepo`](crate::OffsiteRepo): whoever backs up and restores needs no right to delete, and
//! may run with a key that has none. It decides nothing: which points are no longer wanted is planned by the core.
//!
//! # Contract
//! - **F1 own points are those that reseed of this host wrote**, each with its dataset, newest first. What other hosts or other programs
//!   wrote, and what can't be read, is not among them.
//! - **F2 forget removes what is named and nothing else.** Only own points can be named. Each is answered: gone, or still there and
//!   why. One that was gone before is gone.
//! - **F3 prune removes only data that no point needs.** Whatever is listed can be restored before, during and after it. Where there
//!   is data and no snapshot at all, of anybody, it removes nothing and fails: they are more likely lost than all removed.
//! - **F4 locks are honoured**, as in O7 of [`OffsiteRepo`](crate::offsite).
//! - **F5 cancelled means ended**: each point is whole or gone, and a later prune removes what this one left.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::error::{ErrorReport, OffsiteError};
use crate::names::SourceName;
use crate::point::RecoveryPoint;

/// See the [module's contract](self).
#[async_trait]
pub trait OffsitePruner: Send + Sync + fmt::Debug {
    /// What the repository is called in the configuration. Doesn't change while it lives.
    fn name(&self) -> &SourceName;

    /// The points that may be named to `forget`.
    ///
    /// # Errors
    /// What opening the repository can raise.
    async fn own_points(&self, cx: &Context) -> Result<Vec<RecoveryPoint>, OffsiteError>;

    /// Removes points, by their locators. Their data stays until `prune`.
    ///
    /// # Errors
    /// `InvalidInput` for one that is no own point, and then nothing is removed; `Locked`, `PermissionDenied`, and what opening can
    /// raise.
    async fn forget(&self, cx: &Context, locators: &[String]) -> Result<Vec<Forgotten>, OffsiteError>;

    /// Removes data that no point needs any more.
    ///
    /// # Errors
    /// `Locked`, `PermissionDenied`, and what opening can raise.
    async fn prune(&self, cx: &Context) -> Result<(), OffsiteError>;
}

/// What became of a point that was to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// Which.
    pub locator: String,
    /// Why it is still there; none when it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<ErrorReport>,
}
