//! What can be wrong with a server, before it becomes an [`Unavailable`].

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::Unavailable;

/// Why there is no answer to go by.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Trouble {
    /// The server failed lately, and was not asked.
    #[error("Redis is not reachable")]
    Down,
    /// No answer within the deadline; what was asked may have happened, or happen yet.
    #[error("Redis did not answer in time")]
    Late,
    /// The connection, or the server, said no.
    #[error(transparent)]
    Said(#[from] RedisError),
    /// The answer is none that a script of ours gives.
    #[error("Redis gave an answer that makes no sense")]
    Nonsense,
    /// The handle was closed.
    #[error("the connection to Redis was closed")]
    Closed,
}

impl Trouble {
    /// The server does not know the script; it did nothing.
    pub(super) fn is_unknown_script(&self) -> bool {
        matches!(self, Self::Said(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript))
    }

    /// A key holds a value of another type.
    pub(super) fn is_wrong_type(&self) -> bool {
        matches!(self, Self::Said(error) if error.code() == Some("WRONGTYPE"))
    }

    /// The connection is gone: another has to be made before anything is asked.
    pub(super) fn is_cut(&self) -> bool {
        matches!(self, Self::Said(error) if error.is_unrecoverable_error() || error.is_io_error())
    }
}

impl From<Trouble> for Unavailable {
    fn from(trouble: Trouble) -> Self {
        Self::new(trouble)
    }
}
