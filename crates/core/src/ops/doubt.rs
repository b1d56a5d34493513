//! Which points of a repository may only look whole.
//!
//! A snapshot is there before its writer has said whether all of it could be read, and restic is told by a tag afterwards. Where a run was
//! killed in between, or the tag was refused, the repository can't tell that point from a whole one. The journal can: a backup
//! writes down that it begins to store a point, and that it is done when it knows it whole. What was begun and isn't done is in doubt,
//! whether the run failed, was killed, or the power went. What the journal says nothing of isn't, unless its record was written anew since: `restic
//! repair snapshots --forget` and `rewrite --forget` cut a tree down and keep all that is recorded of it, and `tag` leaves the same trace.

use std::collections::HashSet;

use crate::engine::Engine;
use crate::journal::{JournalError, Query, RunKind};
use crate::names::{PointId, ServiceName, SourceName};
use crate::point::RecoveryPoint;

/// How far storing a point is: begun.
pub(super) const BEGUN: &str = "store";
/// All of it is there.
pub(super) const DONE: &str = "done";

/// So many runs are looked at. The next backup that reaches the repository settles a doubt.
const LOOKED_AT: u32 = 2_000;

/// The points of a service in a repository that nobody knows to be whole.
#[derive(Debug)]
pub(super) enum Doubts {
    /// These.
    Of(HashSet<PointId>),
    /// Any: the journal can't be read.
    All,
}

impl Doubts {
    /// # Errors
    /// When the journal can't be read.
    pub(super) fn about(
        engine: &Engine,
        service: &ServiceName,
        repository: &SourceName,
    ) -> Result<Self, JournalError> {
        let query = Query {
            service: Some(service.clone()),
            kind: Some(RunKind::Backup),
            limit: Some(LOOKED_AT),
            ..Query::default()
        };
        let runs = engine.journal.history(&query)?;
        let of_it = runs
            .iter()
            .filter(|run| run.key.peer.as_ref() == Some(repository));
        let (mut told, mut doubts) = (HashSet::new(), HashSet::new());
        // The newest word on a point counts.
        for attempt in of_it.flat_map(|run| run.attempts.iter().rev()) {
            for point in &attempt.points {
                if told.insert(point.clone()) && attempt.stage != DONE {
                    doubts.insert(point.clone());
                }
            }
        }
        Ok(Self::Of(doubts))
    }

    /// Also those of which there is no copy that is as it was written.
    pub(super) fn and_altered(mut self, points: &[RecoveryPoint]) -> Self {
        if let Self::Of(doubts) = &mut self {
            let ids = |is_it: fn(&RecoveryPoint) -> bool| {
                points
                    .iter()
                    .filter(move |point| is_it(point))
                    .map(|point| &point.id)
            };
            let unaltered: HashSet<&PointId> = ids(|point| !point.altered && !point.partial).collect();
            doubts.extend(
                ids(|point| point.altered)
                    .filter(|id| !unaltered.contains(id))
                    .cloned(),
            );
        }
        self
    }

    pub(super) fn has(&self, point: &PointId) -> bool {
        match self {
            Self::Of(doubts) => doubts.contains(point),
            Self::All => true,
        }
    }
}
