//! Declared datasets: what is declared is compared with what the pool has, shown as a plan, and carried out.
//!
//! Promises: nothing is destroyed, renamed or rolled back, whatever is declared; what is not declared is left alone; a
//! second run after a first does nothing; a property that no longer can be changed is explained, not tried. Knows
//! nothing of services, and creates no pool.
//!
//! [`actual`] reads `zfs get`, [`plan`](mod@plan) compares, [`owner`] adds whose they are, [`apply`] runs the steps, [`import`] goes the other way once: from the
//! pool to a configuration.

pub mod actual;
pub mod apply;
pub mod import;
pub mod owner;
pub mod plan;

pub use actual::{Actual, Dataset, DatasetKind, Value};
pub use apply::{Applied, Layout, Outcome};
pub use owner::add_owners;
pub use plan::{LayoutPlan, Obstacle, Step, plan};
