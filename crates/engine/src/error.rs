//! Why a use case did not do what was asked.

use coordination::LimitDecision;
use domain::Refusal;
use store::Fault;

/// The answer is no, or there is none.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The rules say no. Expected, and no fault.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// The idempotency key was given before, for something else. Nothing was done.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The user asks too often; nothing was looked at.
    #[error("too many attempts")]
    Limited(LimitDecision),
    /// Too many are waiting, or the turn did not come in time. Nothing was done, and nothing will be.
    #[error("too many requests are waiting")]
    Overloaded,
    /// The world broke.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}
