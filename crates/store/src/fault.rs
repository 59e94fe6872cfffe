//! Infrastructure failures, classified by what the caller can do next.

use std::fmt;
use std::sync::Arc;

/// An infrastructure failure. Every command of a failed batch gets the same fault.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fault {
    /// Nothing was done, and nothing will be. Retry later.
    #[error("the database is unavailable")]
    Unavailable(#[source] Cause),
    /// The change may or may not be committed. Read before retrying.
    #[error("it is unknown whether the change was committed")]
    OutcomeUnknown(#[source] Cause),
    /// Nothing was done: stored data is inconsistent, or there is a bug. A retry will not help.
    #[error("internal error: inconsistent data or a bug")]
    Broken(#[source] Cause),
}

/// The cause of a fault: for the log, never for a response.
#[derive(Clone, Debug)]
pub struct Cause(Arc<str>);

impl Cause {
    /// A cause with this text.
    pub fn new(text: impl fmt::Display) -> Self {
        Self(text.to_string().into())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Cause {}

impl Fault {
    /// True if the rest of a batch may succeed without the command that caused this fault. An unavailable
    /// database fails all of them; a rejected statement or an undecodable row fails only its own command.
    pub(crate) fn is_command_specific(&self) -> bool {
        matches!(self, Self::Broken(_))
    }
}

/// A decoded row, or the reason why it cannot be decoded. Only the commands that need it fail.
pub(crate) type RowResult<T> = Result<T, Cause>;
