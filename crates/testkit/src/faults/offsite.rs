//! [`Faulty`] as an [`OffsiteRepo`].

use async_trait::async_trait;
use jiff::Timestamp;
use reseed_core::error::OffsiteError;
use reseed_core::names::SourceName;
use reseed_core::offsite::{
    BackupReport, BackupRequest, CheckDepth, CheckReport, OffsiteCaps, RepoInfo, Usage,
};
use reseed_core::point::{RecoveryPoint, Target};
use reseed_core::{Context, OffsiteRepo};

use super::{Faulty, Op};

#[async_trait]
impl OffsiteRepo for Faulty<dyn OffsiteRepo> {
    fn name(&self) -> &SourceName {
        self.inner.name()
    }

    fn caps(&self) -> OffsiteCaps {
        self.inner.caps()
    }

    async fn init(&self, cx: &Context) -> Result<RepoInfo, OffsiteError> {
        let (op, inner_cx) = (Op::RepoInit, cx.child());
        let call = self.inner.init(&inner_cx);
        self.run(cx, &inner_cx, op, self.strike(op), call).await
    }

    async fn open(&self, cx: &Context) -> Result<RepoInfo, OffsiteError> {
        let (op, inner_cx) = (Op::RepoOpen, cx.child());
        let call = self.inner.open(&inner_cx);
        self.run(cx, &inner_cx, op, self.strike(op), call).await
    }

    async fn backup(&self, cx: &Context, request: &BackupRequest) -> Result<BackupReport, OffsiteError> {
        let (op, inner_cx) = (Op::RepoBackup, cx.child());
        let call = self.inner.backup(&inner_cx, request);
        self.run(cx, &inner_cx, op, self.strike(op), call).await
    }

    async fn record(
        &self,
        cx: &Context,
        request: &BackupRequest,
        same_as: &RecoveryPoint,
        read_since: Timestamp,
    ) -> Result<Option<BackupReport>, OffsiteError> {
        let (op, inner_cx) = (Op::RepoRecord, cx.child());
        let call = self.inner.record(&inner_cx, request, same_as, read_since);
        self.run(cx, &inner_cx, op, self.strike(op), call).await
    }

    async fn points(
        &self,
        cx: &Context,
        target: Option<&Target>,
    ) -> Result<Vec<RecoveryPoint>, OffsiteError> {
        let (op, inner_cx) = (Op::RepoPoints, cx.child());
        let fault = self.strike(op);
        let call = self.inner.points(&inner_cx, target);
        let found = self.run(cx, &inner_cx, op, fault.clone(), call).await?;
        let asked: Vec<Target> = target.cloned().into_iter().collect();
        Ok(self.answer(op, &asked, fault.as_ref(), found))
    }

    async fn check(&self, cx: &Context, depth: CheckDepth) -> Result<CheckReport, OffsiteError> {
        let (op, inner_cx) = (Op::RepoCheck, cx.child());
        let call = self.inner.check(&inner_cx, depth);
        self.run(cx, &inner_cx, op, self.strike(op), call).await
    }

    async fn usage(&self, cx: &Context) -> Result<Usage, OffsiteError> {
        let (op, inner_cx) = (Op::RepoUsage, cx.child());
        let call = self.inner.usage(&inner_cx);
        self.run(cx, &inner_cx, op, self.strike(op), call).await
    }
}
