//! Errors of requests to Redis. They leave this module as the source of an [`Unavailable`].

use redis::{ErrorKind, ServerErrorKind};

use crate::Unavailable;

/// A request that has no usable reply.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum RedisError {
    /// The breaker is open; nothing was sent.
    #[error("Redis is unavailable")]
    Down,
    /// No reply within the timeout. The server may have executed the request, or may still execute it.
    #[error("Redis did not reply in time")]
    Timeout,
    /// An error of the connection, or an error reply of the server.
    #[error(transparent)]
    Server(#[from] redis::RedisError),
    /// A reply that none of this crate's scripts gives.
    #[error("Redis sent an unexpected reply")]
    Protocol,
    /// The lock task has panicked and is about to be restarted.
    #[error("the task for Redis locks is restarting")]
    Restarting,
    /// The handle was closed.
    #[error("the connection to Redis was closed")]
    Closed,
}

impl RedisError {
    /// True if the server does not know the script. It has executed nothing.
    pub(super) fn is_unknown_script(&self) -> bool {
        matches!(self, Self::Server(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript))
    }

    /// True if a key holds a value of another type. Before Redis 7 an error inside a script has no code of
    /// its own; the code is in its text.
    pub(super) fn is_wrong_type(&self) -> bool {
        const CODE: &str = "WRONGTYPE";
        let in_text = |error: &redis::RedisError| error.detail().is_some_and(|detail| detail.contains(CODE));
        matches!(self, Self::Server(error) if error.code() == Some(CODE) || in_text(error))
    }

    /// True if the connection is lost and has to be replaced before the next request.
    pub(super) fn is_disconnect(&self) -> bool {
        matches!(self, Self::Server(error) if error.is_unrecoverable_error() || error.is_io_error())
    }
}

impl From<RedisError> for Unavailable {
    fn from(error: RedisError) -> Self {
        Self::new(error)
    }
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::RedisError;

    #[test]
    fn wrong_type_errors_of_every_version_are_recognized() {
        let parse = |text: &[u8]| match parse_redis_value(text).and_then(redis::Value::extract_error) {
            Err(error) => RedisError::Server(error),
            Ok(value) => panic!("{value:?} is no error"),
        };
        let newer = b"-WRONGTYPE Operation against a key holding the wrong kind of value \
            script: 3f, on @user_script:8.\r\n";
        let older =
            b"-ERR Error running script (call to f_3f): @user_script:8: WRONGTYPE Operation against a key \
            holding the wrong kind of value \r\n";
        let other = b"-ERR Error running script (call to f_3f): @user_script:8: OOM command not allowed \r\n";
        assert!(parse(newer).is_wrong_type());
        assert!(parse(older).is_wrong_type());
        assert!(!parse(other).is_wrong_type());
    }
}
