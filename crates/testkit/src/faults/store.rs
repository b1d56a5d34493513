//! [`Faulty`] as a [`SnapshotStore`].

use async_trait::async_trait;
use reseed_core::error::StoreError;
use reseed_core::names::HoldTag;
use reseed_core::point::{Snapshot, SnapshotRef, Target};
use reseed_core::store::{
    CreateSnapshots, HoldChange, Inspection, Pruned, Settle, Settled, Since, StageRequest, Staging, StoreCaps,
};
use reseed_core::{Context, SnapshotStore};

use super::{Faulty, Op};

#[async_trait]
impl SnapshotStore for Faulty<dyn SnapshotStore> {
    fn caps(&self) -> StoreCaps {
        self.inner.caps()
    }

    async fn inspect(&self, cx: &Context, targets: &[Target]) -> Result<Vec<Inspection>, StoreError> {
        let (op, inner_cx) = (Op::StoreInspect, cx.child());
        let fault = self.strike(op);
        let call = self.inner.inspect(&inner_cx, targets);
        let found = self.run(cx, &inner_cx, op, fault.clone(), call).await?;
        Ok(self.answer(op, targets, fault.as_ref(), found))
    }

    async fn list(&self, cx: &Context, targets: &[Target]) -> Result<Vec<Snapshot>, StoreError> {
        let (op, inner_cx) = (Op::StoreList, cx.child());
        let fault = self.strike(op);
        let call = self.inner.list(&inner_cx, targets);
        let found = self.run(cx, &inner_cx, op, fault.clone(), call).await?;
        Ok(self.answer(op, targets, fault.as_ref(), found))
    }

    async fn create(&self, cx: &Context, request: &CreateSnapshots) -> Result<Vec<Snapshot>, StoreError> {
        let (op, inner_cx) = (Op::StoreCreate, cx.child());
        let call = self.inner.create(&inner_cx, request);
        self.run(cx, &inner_cx, op, self.strike(op), call).await
    }

    async fn since(
        &self,
        cx: &Context,
        target: &Target,
        snapshot: &SnapshotRef,
    ) -> Result<Since, StoreError> {
        let (op, inner_cx) = (Op::StoreSince, cx.child());
        let call = self.inner.since(&inner_cx, target, snapshot);
        self.run(cx, &inner_cx, op, self.strike(op), call).await
    }

    async fn hold(
        &self,
        cx: &Context,
        snapshots: &[SnapshotRef],
        tag: &HoldTag,
        change: HoldChange,
    ) -> Result<(), StoreError> {
        let (op, inner_cx) = (Op::StoreHold, cx.child());
        let call = self.inner.hold(&inner_cx, snapshots, tag, change);
        self.run(cx, &inner_cx, op, self.strike(op), call).await
    }

    async fn prune(&self, cx: &Context, snapshots: &[SnapshotRef]) -> Result<Vec<Pruned>, StoreError> {
        let (op, inner_cx) = (Op::StorePrune, cx.child());
        let call = self.inner.prune(&inner_cx, snapshots);
        self.run(cx, &inner_cx, op, self.strike(op), call).await
    }

    async fn stage(&self, cx: &Context, request: &StageRequest) -> Result<Staging, StoreError> {
        let (op, inner_cx) = (Op::StoreStage, cx.child());
        let call = self.inner.stage(&inner_cx, request);
        self.run(cx, &inner_cx, op, self.strike(op), call).await
    }

    async fn settle(&self, cx: &Context, request: &Settle) -> Result<Settled, StoreError> {
        let (op, inner_cx) = (Op::StoreSettle, cx.child());
        let call = self.inner.settle(&inner_cx, request);
        self.run(cx, &inner_cx, op, self.strike(op), call).await
    }
}
