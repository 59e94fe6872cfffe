//! The error of stored data that contradicts itself.

/// Stored data contradicts itself. The command fails and changes nothing; `boxoffice audit` reports details.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored data is inconsistent: {0}")]
pub struct InconsistencyError(pub &'static str);
