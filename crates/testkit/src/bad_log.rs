//! A standard error that accepts no lines.

use std::io::PipeReader;
use std::process::Stdio;

/// A standard error that cannot be written to.
#[derive(Clone, Debug)]
pub enum BadLog {
    /// As a shell redirects it: `2>&-`, `2>/dev/full`.
    Redirected(String),
    /// A pipe without a reader.
    Broken,
    /// A pipe whose reader never reads.
    Blocked,
}

impl BadLog {
    /// Standard error for one process, and the reader that must live as long as the process.
    pub(crate) fn open(&self) -> (Stdio, Option<PipeReader>) {
        match self {
            Self::Redirected(_) => (Stdio::null(), None),
            Self::Broken => {
                let (reader, writer) = std::io::pipe().expect("a pipe");
                drop(reader);
                (writer.into(), None)
            }
            Self::Blocked => {
                let (reader, writer) = std::io::pipe().expect("a pipe");
                (writer.into(), Some(reader))
            }
        }
    }
}
