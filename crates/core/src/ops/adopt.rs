//! An operator's word that what is there is the service's data.

use std::time::Duration;

use super::{Doing, OpOutcome, OpReport};
use crate::context::Context;
use crate::engine::Engine;
use crate::error::{OpError, OpKind};
use crate::journal::{Entry, ServiceRecord};
use crate::point::{Marker, MarkerState};
use crate::preseed::release_unseeded_hold;
use crate::service::Service;
use crate::store::{Condition, Inspection, Settle};

const BUDGET: Duration = Duration::from_secs(300);

/// Marks every dataset of a service as the service's data, lifts the unseeded guard and releases its holds.
pub async fn adopt(engine: &Engine, cx: &Context, service: &Service) -> OpReport {
    let mut doing = Doing::begin(engine, cx, service, "adopt", None);
    let marks = match marks(engine, cx, service).await {
        Ok((_, marks)) => marks,
        Err(error) => return doing.fail(error.report()),
    };
    let store = &service.store;
    for mark in marks {
        let settled = engine.within(cx, BUDGET, "marking", |cx| async move {
            store.settle(&cx, &mark).await
        });
        if let Err(error) = settled.await {
            return doing.fail(error.report());
        }
    }
    for target in &service.targets {
        doing.done(target.dataset.to_string());
    }
    if let Err(error) = release_unseeded_hold(engine, cx, service, BUDGET).await {
        doing.warn(format!(
            "the holds of the unseeded guard could not be released: {error}"
        ));
    }
    let record = ServiceRecord::seeded(service.name.clone(), engine.clock.now());
    engine.journal.write(vec![Entry::Service(record)]);
    doing.end(OpOutcome::Ok)
}

/// Says what [`adopt`] would mark: what stands at each of the service's targets.
///
/// # Errors
/// Why it would not.
pub async fn adopt_plan(
    engine: &Engine,
    cx: &Context,
    service: &Service,
) -> Result<Vec<Inspection>, OpError> {
    marks(engine, cx, service)
        .await
        .map(|(inspections, _)| inspections)
}

/// All or none: a service of which a part is marked would look adopted.
async fn marks(
    engine: &Engine,
    cx: &Context,
    service: &Service,
) -> Result<(Vec<Inspection>, Vec<Settle>), OpError> {
    let store = &service.store;
    let inspections = engine.within(cx, BUDGET, "inspecting", |cx| async move {
        store.inspect(&cx, &service.targets).await
    });
    let inspections = inspections.await.map_err(|e| e.convert(OpKind::Failed))?;
    let marks = inspections
        .iter()
        .map(|inspection| mark(engine, cx, inspection))
        .collect::<Result<_, _>>()?;
    Ok((inspections, marks))
}

fn mark(engine: &Engine, cx: &Context, inspection: &Inspection) -> Result<Settle, OpError> {
    match (&inspection.condition, inspection.guid) {
        // Unmounted, with a guid: the operator says that what is there is the data, wherever it was before.
        (Condition::Populated | Condition::Empty | Condition::Unmounted { .. }, Some(guid)) => {
            Ok(Settle::Mark {
                target: inspection.target.clone(),
                guid,
                marker: Marker {
                    run: cx.run.clone(),
                    at: engine.clock.now(),
                    state: MarkerState::Adopted,
                },
            })
        }
        _ => Err(OpError::new(
            OpKind::Blocked,
            format!("{} is not there to be adopted", inspection.target.dataset),
        )
        .hint(format!(
            "bring {} to its place first",
            inspection.target.mountpoint.display()
        ))),
    }
}
