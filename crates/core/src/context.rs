//! What every call of every trait is given: whose run it is, where its events go, and whether to stop.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::event::{Event, EventSink, Silent};
use crate::names::RunId;

/// The run a call belongs to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Context {
    /// The run, as the journal, holds and staging know it.
    pub run: RunId,
    /// Cancelled when the run is to end. Whoever waits, waits for this too; whoever has children, kills and reaps them.
    pub cancel: CancellationToken,
    events: Arc<dyn EventSink>,
}

impl Context {
    /// A context whose events go to `events`.
    pub fn new(run: RunId, events: Arc<dyn EventSink>, cancel: CancellationToken) -> Self {
        Self { run, cancel, events }
    }

    /// A context that nobody listens to and nobody cancels.
    pub fn silent(run: RunId) -> Self {
        Self::new(run, Arc::new(Silent), CancellationToken::new())
    }

    /// Tells whoever listens.
    pub fn emit(&self, event: Event) {
        self.events.emit(&self.run, event);
    }

    /// Where the events go.
    pub fn events(&self) -> &Arc<dyn EventSink> {
        &self.events
    }

    /// The same run and token with other ears.
    #[must_use]
    pub(crate) fn heard_by(&self, events: Arc<dyn EventSink>) -> Self {
        Self::new(self.run.clone(), events, self.cancel.clone())
    }

    /// The same run with a token that is cancelled with this one, and can be cancelled alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            run: self.run.clone(),
            cancel: self.cancel.child_token(),
            events: Arc::clone(&self.events),
        }
    }
}
