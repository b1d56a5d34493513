//! [`Faulty`] as a [`WalArchiver`].

use std::path::Path;

use async_trait::async_trait;
use reseed_core::error::WalError;
use reseed_core::names::SourceName;
use reseed_core::wal::{Archived, BaseBackup, Fetched, WalCaps, WalFile};
use reseed_core::{Context, WalArchiver};

use super::{Faulty, Op};

#[async_trait]
impl WalArchiver for Faulty<dyn WalArchiver> {
    fn name(&self) -> &SourceName {
        self.inner.name()
    }

    fn caps(&self) -> WalCaps {
        self.inner.caps()
    }

    async fn archive(&self, cx: &Context, file: &WalFile, path: &Path) -> Result<Archived, WalError> {
        let (op, inner_cx) = (Op::WalArchive, cx.child());
        let call = self.inner.archive(&inner_cx, file, path);
        self.run(cx, &inner_cx, op, self.strike(op), call).await
    }

    async fn fetch(&self, cx: &Context, file: &WalFile, to: &Path) -> Result<Fetched, WalError> {
        let (op, inner_cx) = (Op::WalFetch, cx.child());
        let call = self.inner.fetch(&inner_cx, file, to);
        self.run(cx, &inner_cx, op, self.strike(op), call).await
    }

    async fn list(&self, cx: &Context) -> Result<Vec<WalFile>, WalError> {
        let (op, inner_cx) = (Op::WalList, cx.child());
        let fault = self.strike(op);
        let call = self.inner.list(&inner_cx);
        let found = self.run(cx, &inner_cx, op, fault.clone(), call).await?;
        Ok(self.answer(op, &[], fault.as_ref(), found))
    }

    async fn backups(&self, cx: &Context) -> Result<Vec<BaseBackup>, WalError> {
        let (op, inner_cx) = (Op::WalBackups, cx.child());
        let fault = self.strike(op);
        let call = self.inner.backups(&inner_cx);
        let found = self.run(cx, &inner_cx, op, fault.clone(), call).await?;
        Ok(self.answer(op, &[], fault.as_ref(), found))
    }

    async fn base_backup(&self, cx: &Context, data: &Path) -> Result<BaseBackup, WalError> {
        let (op, inner_cx) = (Op::WalBaseBackup, cx.child());
        let call = self.inner.base_backup(&inner_cx, data);
        self.run(cx, &inner_cx, op, self.strike(op), call).await
    }
}
