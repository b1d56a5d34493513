//! Panics of the libraries underneath, as errors.

use super::{EngineError, Result};

/// Runs `body` and turns a panic of a library underneath into an error: nothing in a repository may bring the
/// program down.
pub(crate) fn guarded<T>(during: &str, body: impl FnOnce() -> Result<T>) -> Result<T> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
        Ok(result) => result,
        Err(payload) => Err(panicked(during, payload.as_ref())),
    }
}

pub(crate) fn panicked(during: &str, payload: &(dyn std::any::Any + Send)) -> EngineError {
    let detail = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a message".to_owned());
    EngineError::Panicked {
        during: during.to_owned(),
        detail: crate::words::plain(&detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_message() {
        let result: Result<()> = guarded("a test", || panic!("boom {}", 7));
        assert_eq!(
            result,
            Err(EngineError::Panicked {
                during: "a test".into(),
                detail: "boom 7".into()
            })
        );
    }
}
