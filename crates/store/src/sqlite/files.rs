//! Detection of database files that were removed, renamed or replaced while they are open.
//!
//! SQLite continues to write to a file that was removed, renamed or replaced, or whose WAL was; these writes
//! are lost when it is closed (<https://sqlite.org/howtocorrupt.html>, section 2).

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The files of an open database: their paths, and their identities at the time of opening.
pub(super) struct Files(Vec<(PathBuf, Identity)>);

/// The device and inode number of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity(u64, u64);

impl Identity {
    fn at(path: &Path) -> io::Result<Self> {
        path.metadata().map(|found| Self(found.dev(), found.ino()))
    }
}

impl Files {
    /// The database, its WAL and the WAL index. All exist once a connection in WAL mode has read.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let named = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let known = |path: PathBuf| Identity::at(&path).map(|found| (path, found));
        ["", "-wal", "-shm"].map(named).into_iter().map(known).collect::<io::Result<_>>().map(Self)
    }

    /// Describes the first file that is not at its path any more; `None` if all are. Takes three calls of
    /// `stat`.
    pub(super) fn missing(&self) -> Option<String> {
        self.0.iter().find_map(|(path, known)| match Identity::at(path) {
            Ok(found) if found == *known => None,
            Ok(_) => Some(format!("{} was replaced by another file", path.display())),
            Err(error) => Some(format!("{} was removed or renamed: {error}", path.display())),
        })
    }
}
