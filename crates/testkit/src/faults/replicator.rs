//! [`Faulty`] as a [`Replicator`].

use async_trait::async_trait;
use reseed_core::error::ReplicateError;
use reseed_core::names::SourceName;
use reseed_core::point::Target;
use reseed_core::replicate::{Lineage, ReplicationPlan, ReplicationReport, ReplicatorCaps};
use reseed_core::{Context, Replicator};

use super::{Faulty, Op};

#[async_trait]
impl Replicator for Faulty<dyn Replicator> {
    fn name(&self) -> &SourceName {
        self.inner.name()
    }

    fn caps(&self) -> ReplicatorCaps {
        self.inner.caps()
    }

    async fn plan(&self, cx: &Context, targets: &[Target]) -> Result<ReplicationPlan, ReplicateError> {
        let (op, inner_cx) = (Op::ReplicaPlan, cx.child());
        let fault = self.strike(op);
        let call = self.inner.plan(&inner_cx, targets);
        let plan = self.run(cx, &inner_cx, op, fault.clone(), call).await?;
        Ok(self.answer(op, targets, fault.as_ref(), plan))
    }

    async fn execute(
        &self,
        cx: &Context,
        plan: &ReplicationPlan,
    ) -> Result<ReplicationReport, ReplicateError> {
        let (op, inner_cx) = (Op::ReplicaExecute, cx.child());
        let call = self.inner.execute(&inner_cx, plan);
        self.run(cx, &inner_cx, op, self.strike(op), call).await
    }

    async fn lineage(&self, cx: &Context, targets: &[Target]) -> Result<Vec<Lineage>, ReplicateError> {
        let (op, inner_cx) = (Op::ReplicaLineage, cx.child());
        let fault = self.strike(op);
        let call = self.inner.lineage(&inner_cx, targets);
        let found = self.run(cx, &inner_cx, op, fault.clone(), call).await?;
        Ok(self.answer(op, targets, fault.as_ref(), found))
    }
}
