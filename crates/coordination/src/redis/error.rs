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
    /// The task that asks has panicked and is about to be restarted.
    #[error("the task that speaks to Redis is being restarted")]
    Restarting,
    /// The handle was closed.
    #[error("the connection to Redis was closed")]
    Closed,
}

impl Trouble {
    /// The server does not know the script; it did nothing.
    pub(super) fn is_unknown_script(&self) -> bool {
        matches!(self, Self::Said(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript))
    }

    /// A key holds a value of another type. Before Redis 7 a script's error has no code of its own, but says so.
    pub(super) fn is_wrong_type(&self) -> bool {
        const CODE: &str = "WRONGTYPE";
        let says = |error: &RedisError| error.detail().is_some_and(|detail| detail.contains(CODE));
        matches!(self, Self::Said(error) if error.code() == Some(CODE) || says(error))
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

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::Trouble;

    #[test]
    fn wrong_type_errors_of_every_version_are_recognized() {
        let said = |text: &[u8]| match parse_redis_value(text).and_then(redis::Value::extract_error) {
            Err(error) => Trouble::Said(error),
            Ok(value) => panic!("{value:?} is no error"),
        };
        let newer = b"-WRONGTYPE Operation against a key holding the wrong kind of value script: 3f, on @user_script:8.\r\n";
        let older =
            b"-ERR Error running script (call to f_3f): @user_script:8: WRONGTYPE Operation against a key \
            holding the wrong kind of value \r\n";
        let other = b"-ERR Error running script (call to f_3f): @user_script:8: OOM command not allowed \r\n";
        assert!(said(newer).is_wrong_type());
        assert!(said(older).is_wrong_type());
        assert!(!said(other).is_wrong_type());
    }
}
