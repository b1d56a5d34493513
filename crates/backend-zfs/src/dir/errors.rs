//! From the store's inner errors to those of the traits.

use reseed_core::error::{
    Effect, ReplicateError, ReplicateKind, SourceError, SourceKind, StoreError, StoreKind,
};

use super::sys::Fail;

/// Turns an inner result into a trait's.
pub(super) trait Outward<T> {
    fn store(self) -> Result<T, StoreError>;
    fn source(self, effect: Effect) -> Result<T, SourceError>;
    fn replicate(self) -> Result<T, ReplicateError>;
}

impl<T> Outward<T> for Result<T, Fail> {
    fn store(self) -> Result<T, StoreError> {
        self.map_err(|fail| fail.convert(StoreKind::Io))
    }

    fn source(self, effect: Effect) -> Result<T, SourceError> {
        self.map_err(|fail| fail.convert(SourceKind::Io).effect(effect))
    }

    fn replicate(self) -> Result<T, ReplicateError> {
        self.map_err(|fail| fail.convert(ReplicateKind::Io))
    }
}
