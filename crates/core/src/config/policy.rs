//! What holds for a service: its own keys, then the defaults, then what reseed has by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use super::decode::{At, List, Maybe};
use super::diagnostic::{Extra, Sink};
use super::file::{PolicyKeys, Prefer, RetentionFile, Verify, WhenExhausted};
use super::model::{DEFAULT_BUDGET, DEFAULT_SOURCE_BUDGET, DEFAULT_TRIES, Policy, Retention};
use super::places::{Kind, Places};
use super::text::Span;
use super::values::{Lasting, Reference};
use crate::names::SourceName;

/// A unit's TimeoutStartSec that reseed's own units have. A walk that is as long is killed before it can fall back.
const TIMEOUT_START: Duration = Duration::from_secs(3600);

/// The defaults, and what they mean for each service.
pub(crate) struct Policies<'a> {
    places: &'a Places<'a>,
    defaults: PolicyKeys<'a>,
    /// The defaults' references, looked up once.
    store: Option<SourceName>,
    replicas: Option<Vec<SourceName>>,
    offsite: Option<Vec<SourceName>>,
    chain: Option<Vec<SourceName>>,
}

/// A service's own value, or the defaults'.
fn pick<'a, T>(own: &'a Maybe<T>, default: &'a Maybe<T>) -> &'a Maybe<T> {
    if own.is_absent() { default } else { own }
}

impl<'a> Policies<'a> {
    /// Checks what the defaults say by themselves.
    pub(crate) fn new(
        places: &'a Places<'a>,
        defaults: PolicyKeys<'a>,
        root: &At<'_>,
        sink: &mut Sink<'_>,
    ) -> Self {
        let at = root.key("defaults", root.span);
        let list = |value: &Maybe<List<Reference>>, key: &str, kind: Kind, sink: &mut Sink<'_>| {
            let (list, span) = value.given()?;
            places.lookup_all(list, kind, &at.key(key, span), sink)
        };
        let store = (defaults.store.given())
            .and_then(|(name, span)| places.lookup(name, span, Kind::Store, &at.key("store", span), sink));
        let replicas = list(defaults.replicas, "replicas", Kind::Replica, sink);
        let offsite = list(defaults.offsite, "offsite", Kind::Offsite, sink);
        let chain = list(defaults.chain, "chain", Kind::Any, sink);
        if let Maybe::Given(list, span) = defaults.chain
            && list.0.is_empty()
        {
            empty_chain::<()>(&at.key("chain", span), span, sink);
        }
        budgets(defaults.budget.given(), defaults.source_budget.given(), &at, sink);
        Self {
            places,
            defaults,
            store,
            replicas,
            offsite,
            chain,
        }
    }

    /// The policy of one service. `None` when there are errors; then the sink has them.
    pub(crate) fn policy(&self, own: PolicyKeys<'_>, at: &At<'_>, sink: &mut Sink<'_>) -> Option<Policy> {
        let store = self.store(own.store, at, sink);
        let replicas = self.list(
            own.replicas,
            (self.defaults.replicas, &self.replicas),
            Kind::Replica,
            ("replicas", at),
            sink,
        );
        let offsite = self.list(
            own.offsite,
            (self.defaults.offsite, &self.offsite),
            Kind::Offsite,
            ("offsite", at),
            sink,
        );
        let retention = self.retention(own.retention, at, sink);
        let (budget, source_budget) = self.budgets(own, at, sink);
        let (store, replicas, offsite) = (store?, replicas?, offsite?);
        let replicas = self.fitting(&store, replicas, own.replicas, at, sink)?;
        let chain = self.chain(own.chain, (&store, &replicas, &offsite), at, sink)?;
        Some(Policy {
            chain,
            store,
            replicas,
            offsite,
            prefer: pick(own.prefer, self.defaults.prefer)
                .value()
                .copied()
                .unwrap_or(Prefer::Chain),
            when_exhausted: (pick(own.when_exhausted, self.defaults.when_exhausted).value())
                .copied()
                .unwrap_or(WhenExhausted::StartEmpty),
            verify: pick(own.verify, self.defaults.verify)
                .value()
                .copied()
                .unwrap_or(Verify::Digest),
            budget,
            source_budget,
            tries: pick(own.tries, self.defaults.tries)
                .value()
                .map_or(DEFAULT_TRIES, |tries| tries.0),
            retention,
        })
    }

    fn store(&self, own: &Maybe<Reference>, at: &At<'_>, sink: &mut Sink<'_>) -> Option<SourceName> {
        match (own, self.defaults.store) {
            (Maybe::Given(name, span), _) => {
                self.places
                    .lookup(name, span, Kind::Store, &at.key("store", span), sink)
            }
            (Maybe::Absent, Maybe::Given(..)) => self.store.clone(),
            (Maybe::Absent, Maybe::Absent) => self.places.only_store(at, sink),
            _ => None,
        }
    }

    fn list(
        &self,
        own: &Maybe<List<Reference>>,
        (default, resolved): (&Maybe<List<Reference>>, &Option<Vec<SourceName>>),
        kind: Kind,
        (key, at): (&str, &At<'_>),
        sink: &mut Sink<'_>,
    ) -> Option<Vec<SourceName>> {
        match (own, default) {
            (Maybe::Given(list, span), _) => self.places.lookup_all(list, kind, &at.key(key, span), sink),
            (Maybe::Absent, Maybe::Given(..)) => resolved.clone(),
            (Maybe::Absent, Maybe::Absent) => Some(self.places.all(kind)),
            _ => None,
        }
    }

    /// The places, for those who look further into them.
    pub(crate) fn places(&self) -> &'a Places<'a> {
        self.places
    }

    /// The replicas that can take what this store has: ZFS sends to ZFS, directories to directories. One that the service
    /// names itself has to; others are left out for it.
    fn fitting(
        &self,
        store: &SourceName,
        mut replicas: Vec<SourceName>,
        own: &Maybe<List<Reference>>,
        at: &At<'_>,
        sink: &mut Sink<'_>,
    ) -> Option<Vec<SourceName>> {
        let Some(technique) = self.places.technique(store) else {
            return Some(replicas);
        };
        let fits = |name: &SourceName| self.places.technique(name).is_none_or(|other| other == technique);
        let Some((list, _)) = own.given() else {
            replicas.retain(fits);
            return Some(replicas);
        };
        let mut complete = true;
        for (name, (_, span)) in replicas.iter().zip(&list.0).filter(|(name, _)| !fits(name)) {
            complete = false;
            let other = self.places.technique(name).unwrap_or(technique);
            let message = format!(
                "the replica `{name}` is {}, and the store `{store}` is {}",
                other.what(),
                technique.what()
            );
            let hint = "snapshots of ZFS are sent to ZFS, those of a directory to a directory";
            sink.error(at.key("replicas", span), span, message, Extra::hint(hint));
        }
        complete.then_some(replicas)
    }

    fn chain(
        &self,
        own: &Maybe<List<Reference>>,
        (store, replicas, offsite): (&SourceName, &[SourceName], &[SourceName]),
        at: &At<'_>,
        sink: &mut Sink<'_>,
    ) -> Option<Vec<SourceName>> {
        let used: BTreeSet<_> = std::iter::once(store).chain(replicas).chain(offsite).collect();
        match (own, self.defaults.chain) {
            (Maybe::Given(list, span), _) => {
                let here = at.key("chain", span);
                let chain = self.places.lookup_all(list, Kind::Any, &here, sink)?;
                if chain.is_empty() {
                    return empty_chain(&here, span, sink);
                }
                let mut complete = true;
                for (name, (_, span)) in chain.iter().zip(&list.0).filter(|(name, _)| !used.contains(name)) {
                    complete = false;
                    let kind = self.places.kind(name.as_str()).unwrap_or(Kind::Any);
                    let message = format!("`{at}` does not use the {} \"{name}\"", kind.singular());
                    let hint = match kind {
                        Kind::Store => format!("its data is in the store `{store}`"),
                        kind => format!(
                            "add it to the service's `{}`, or take it out of the chain",
                            kind.key()
                        ),
                    };
                    sink.error(here, span, message, Extra::hint(hint));
                }
                complete.then_some(chain)
            }
            (Maybe::Absent, Maybe::Given(_, span)) => {
                let chain = self.chain.clone()?;
                let here: Vec<_> = chain.into_iter().filter(|name| used.contains(name)).collect();
                if here.is_empty() {
                    let message = format!("the default chain has no source that `{at}` uses");
                    let hint = "give the service a chain of its own";
                    let note = format!("the default chain is in line {}", sink.text.line(span.start));
                    sink.error(at, at.span, message, Extra::hint(hint).note(note));
                    return None;
                }
                Some(here)
            }
            (Maybe::Absent, Maybe::Absent) => Some(
                std::iter::once(store)
                    .chain(replicas)
                    .chain(offsite)
                    .cloned()
                    .collect(),
            ),
            _ => None,
        }
    }

    fn budgets(&self, own: PolicyKeys<'_>, at: &At<'_>, sink: &mut Sink<'_>) -> (Duration, Duration) {
        let budget = pick(own.budget, self.defaults.budget);
        let source = pick(own.source_budget, self.defaults.source_budget);
        // What the defaults say about both is checked once, with the defaults.
        if !own.budget.is_absent() || !own.source_budget.is_absent() {
            budgets(budget.given(), source.given(), at, sink);
        }
        let budget = budget.value().map_or(DEFAULT_BUDGET, |budget| budget.0);
        let source = source
            .value()
            .map_or(DEFAULT_SOURCE_BUDGET.min(budget), |source| source.0);
        (budget, source.min(budget))
    }

    fn retention(&self, own: &Maybe<RetentionFile>, at: &At<'_>, sink: &mut Sink<'_>) -> Retention {
        let (own_value, default) = (own.value(), self.defaults.retention.value());
        let builtin = Retention::default();
        macro_rules! count {
            ($field:ident) => {
                (own_value.and_then(|own| own.$field.value()))
                    .or_else(|| default.and_then(|default| default.$field.value()))
                    .map_or(builtin.$field, |count| count.0)
            };
        }
        let retention = Retention {
            frequently: count!(frequently),
            hourly: count!(hourly),
            daily: count!(daily),
            weekly: count!(weekly),
            monthly: count!(monthly),
            yearly: count!(yearly),
        };
        if retention.is_nothing() {
            let span = own.given().map_or(at.span, |(_, span)| span);
            let message = format!("no snapshot of `{at}` is kept: every count is 0");
            sink.warn(
                at.key("retention", span),
                span,
                message,
                Extra::hint("set at least one of them"),
            );
        }
        retention
    }
}

fn empty_chain<T>(at: &At<'_>, span: &Span, sink: &mut Sink<'_>) -> Option<T> {
    let hint = "name at least one source, or leave it out for the default";
    sink.error(
        at,
        span,
        format!("`{at}` is empty: nothing would ever be restored"),
        Extra::hint(hint),
    );
    None
}

type GivenLasting<'a> = Option<(&'a Lasting, &'a Span)>;

fn budgets(budget: GivenLasting<'_>, source: GivenLasting<'_>, at: &At<'_>, sink: &mut Sink<'_>) {
    if let Some((budget, span)) = budget
        && budget.0 >= TIMEOUT_START
    {
        let message = "the budget is not inside the default TimeoutStartSec of a unit, 3600 s";
        let hint = "keep it below \"1h\", or raise TimeoutStartSec of the service's preseed unit above it";
        sink.warn(at.key("budget", span), span, message, Extra::hint(hint));
    }
    if let (Some((budget, budget_span)), Some((source, source_span))) = (budget, source)
        && source.0 > budget.0
    {
        let message = "one source's budget is longer than the budget of the whole chain";
        let note = format!("`budget` is in line {}", sink.text.line(budget_span.start));
        let hint = "make `source_budget` shorter, so that the sources after it get their turn";
        sink.error(
            at.key("source_budget", source_span),
            source_span,
            message,
            Extra::hint(hint).note(note),
        );
    }
}
