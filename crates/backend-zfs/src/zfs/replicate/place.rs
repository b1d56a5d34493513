//! Whether what isn't encrypted becomes so by the place where its replica is put.
//!
//! It does below what somebody made encrypted for replicas, the root or something on the way from there. It doesn't inside of a replica
//! that was sent raw: that one's key is elsewhere, and the dataset isn't encrypted below the original either.

use reseed_core::Context;
use reseed_core::error::{ReplicateError, ReplicateKind};
use reseed_core::names::DatasetName;

use super::super::parse::text;
use super::super::{argv, names, transfer};
use super::NativeReplicator;

impl NativeReplicator {
    /// What a replica that isn't there yet must not be given by a stream of this form. What is above it is there.
    pub(super) async fn never_anew(
        &self,
        cx: &Context,
        replica: &DatasetName,
        form: argv::Form,
    ) -> Result<&'static [&'static str], ReplicateError> {
        // `zfs` refuses to be told so of a raw stream, and sends no properties in the clear.
        if form == argv::Form::Plain && self.is_encrypted_by_its_place(cx, replica).await? {
            return Ok(argv::NEVER_RECEIVED_ENCRYPTING);
        }
        Ok(argv::NEVER_RECEIVED)
    }

    async fn is_encrypted_by_its_place(
        &self,
        cx: &Context,
        replica: &DatasetName,
    ) -> Result<bool, ReplicateError> {
        let Some(parent) = names::parent(replica) else {
            return Ok(false);
        };
        let key_of = self.value(cx, argv::get_encryption_root(&parent)).await?;
        if !transfer::is_root(&key_of) {
            return Ok(false);
        }
        let key_of = DatasetName::new(key_of)
            .map_err(|error| ReplicateError::new(ReplicateKind::Io, UNKNOWN).said(error))?;
        let root = self.mapping.root();
        if key_of == *root || super::order::is_inside(root, &key_of) {
            return Ok(true);
        }
        // Each replica of ours has a record of its own.
        Ok(self
            .value(cx, argv::get_local(&key_of, argv::SETTINGS))
            .await?
            .is_empty())
    }

    async fn value(&self, cx: &Context, args: argv::Args) -> Result<String, ReplicateError> {
        let value = |stdout: &[u8]| Ok(text(stdout)?.trim_end_matches('\n').to_owned());
        self.there.read(cx, args, UNKNOWN, value).await
    }
}

const UNKNOWN: &str = "can't tell whether the place of a new replica is encrypted";
