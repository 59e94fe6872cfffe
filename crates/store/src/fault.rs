//! How the world breaks, named by what the asker may do about it.

use std::fmt;
use std::sync::Arc;

/// The world broke. Every command of a batch that fails hears the same fault.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fault {
    /// Nothing was done, and nothing will be. Ask again later.
    #[error("the database is unavailable")]
    Unavailable(#[source] Cause),
    /// The change may or may not stand. Read before asking again.
    #[error("whether the change stands is unknown")]
    OutcomeUnknown(#[source] Cause),
    /// Nothing was done: what is stored, or the program, is wrong. Asking again will not help.
    #[error("stored data or the program is at fault")]
    Broken(#[source] Cause),
}

/// What lies behind a fault: for the log, never for an answer.
#[derive(Clone, Debug)]
pub struct Cause(Arc<str>);

impl Cause {
    /// A cause in words.
    pub fn new(what: impl fmt::Display) -> Self {
        Self(what.to_string().into())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Cause {}

impl Fault {
    /// Whether the rest of a batch may do better without the command that caused this. The database being
    /// away concerns all of them; a refused statement or an unreadable row concerns only its own.
    pub(crate) fn is_command_specific(&self) -> bool {
        matches!(self, Self::Broken(_))
    }
}
