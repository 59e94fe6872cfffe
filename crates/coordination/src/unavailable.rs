//! The only infrastructure error of a lock or a limiter.

use std::error::Error;
use std::sync::Arc;

/// The server with the shared state did not reply, or sent an error or an unexpected reply.
///
/// The outcome is unknown, and nothing stays owned longer than a lease. Callers continue without the
/// primitive or refuse their own request; they do not wait for it. The implementations in
/// [`local`](crate::local) never return this error.
#[derive(Debug, Clone, thiserror::Error)]
#[error("coordination is unavailable")]
pub struct Unavailable {
    source: Arc<dyn Error + Send + Sync>,
}

impl Unavailable {
    /// Wraps the cause, which becomes the error's source.
    pub fn new(source: impl Error + Send + Sync + 'static) -> Self {
        Self { source: Arc::new(source) }
    }
}
