//! Exit codes. They are part of the interface: `reseed --help` lists them.

use reseed_core::error::{OpError, OpKind};
use reseed_core::ops::{OpOutcome, OpReport};
use reseed_core::preseed::{Outcome, ServiceReport};

/// How a command ended, the worst of its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    Ok,
    Partial,
    Failed,
    Locked,
    Blocked,
    Usage,
    Interrupted,
}

impl Exit {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Partial => 3,
            Self::Blocked => 4,
            Self::Locked => 5,
            Self::Interrupted => 130,
        }
    }

    pub(crate) fn of_error(error: &OpError) -> Self {
        match error.kind() {
            OpKind::Locked => Self::Locked,
            OpKind::Blocked | OpKind::Exhausted | OpKind::Guarded => Self::Blocked,
            OpKind::Config | OpKind::InvalidInput => Self::Usage,
            OpKind::Cancelled => Self::Interrupted,
            _ => Self::Failed,
        }
    }

    pub(crate) fn of_preseed(report: &ServiceReport) -> Self {
        match &report.outcome {
            Outcome::DataPresent | Outcome::Restored | Outcome::FirstStart | Outcome::StartedEmpty { .. } => {
                Self::Ok
            }
            Outcome::Held { .. } | Outcome::Blocked { .. } => Self::Blocked,
            Outcome::Failed { .. } => Self::Failed,
            Outcome::Interrupted => Self::Interrupted,
        }
    }

    pub(crate) fn of_op(report: &OpReport) -> Self {
        match report.outcome {
            OpOutcome::Ok | OpOutcome::UpToDate => Self::Ok,
            OpOutcome::Partial => Self::Partial,
            OpOutcome::Skipped => Self::Blocked,
            OpOutcome::Failed => Self::Failed,
            OpOutcome::Interrupted => Self::Interrupted,
        }
    }
}
