//! The one way in which the world, and not the caller, can break a lock or a limiter.

use std::error::Error;
use std::sync::Arc;

/// The place where the shared state lives did not answer, or answered nonsense.
///
/// The outcome is unknown, and nothing stays owned beyond a lease. Callers go on without the primitive or
/// refuse; they do not wait for it. The implementations in [`local`](crate::local) never fail this way.
#[derive(Debug, Clone, thiserror::Error)]
#[error("coordination is unavailable")]
pub struct Unavailable {
    source: Arc<dyn Error + Send + Sync>,
}

impl Unavailable {
    /// Wraps what went wrong; it is kept as the error's source.
    pub fn new(source: impl Error + Send + Sync + 'static) -> Self {
        Self { source: Arc::new(source) }
    }
}
