//! The errors of use cases.

use coordination::LimitDecision;
use domain::Refusal;
use store::Fault;

/// The reason why a use case has no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The rules refuse the command. Expected, and not a fault.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// The idempotency key was used for another request. Nothing was done.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The user exceeds a rate limit; no stored data was read.
    #[error("too many attempts")]
    Limited(LimitDecision),
    /// The queue is full, or the command timed out in it. Nothing was done, and nothing will be.
    #[error("too many requests are waiting")]
    Overloaded,
    /// An infrastructure failure.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}
