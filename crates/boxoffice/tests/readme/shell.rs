//! A shell in a fresh clone of the repository.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use testkit::{Program, ProgramOutput};

use crate::blocks::ROOT;

/// Prefixes of variables that cargo, rustup or make set for this test, and that a reader does not have.
const SET_FOR_TESTS: [&str; 14] = [
    "BOXOFFICE_",
    "CARGO_BIN_",
    "CARGO_CRATE_",
    "CARGO_MAKEFLAGS",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "CARGO_PRIMARY_",
    "CARGO_TARGET_TMPDIR",
    "LD_LIBRARY_PATH",
    "MAKE",
    "MFLAGS",
    "OUT_DIR",
    "RUSTUP_TOOLCHAIN",
    "RUST_RECURSION_COUNT",
];

/// A shell in a fresh clone, with an empty home directory.
pub(crate) struct Shell {
    clone: PathBuf,
    home: TempDir,
    /// The caller's, so that dependencies are downloaded and compiled once.
    rustup: PathBuf,
    cargo: PathBuf,
    target: PathBuf,
    /// Changes that are not committed, so that the clone lacks them.
    pub(crate) uncommitted: String,
}

impl Shell {
    /// Clones the last commit of this checkout.
    pub(crate) fn in_a_fresh_clone() -> Self {
        let target =
            Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory").to_owned();
        // Always the same folder, so that builds of earlier runs do not accumulate.
        let clone = target.join("readme/boxoffice");
        match std::fs::remove_dir_all(&clone) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                panic!("{}: {error}", clone.display())
            }
            Ok(()) | Err(_) => {}
        }
        git(&["clone", "--quiet", ".", clone.to_str().expect("a path in UTF-8")]);
        Self {
            clone,
            home: tempfile::tempdir().expect("a folder"),
            rustup: folder("RUSTUP_HOME", ".rustup"),
            cargo: folder("CARGO_HOME", ".cargo"),
            target,
            uncommitted: git(&["status", "--porcelain"]),
        }
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// A command that runs a text as if it were pasted into a terminal, but stops at the first failure.
    pub(crate) fn command(&self, text: &str) -> Command {
        let mut command = Command::new("bash");
        command.args(["-e", "-o", "pipefail", "-c", text]).current_dir(&self.clone);
        for (name, _) in std::env::vars_os() {
            if SET_FOR_TESTS.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.home()).env("RUSTUP_HOME", &self.rustup).env("CARGO_HOME", &self.cargo);
        command.env("CARGO_TARGET_DIR", &self.target);
        command
    }

    /// Runs a text to its end.
    pub(crate) async fn run(&self, text: &str, deadline: Duration) -> ProgramOutput {
        Program::finish_within(deadline, self.command(text)).await
    }
}

/// Runs git in this checkout, and returns its standard output.
pub(crate) fn git(arguments: &[&str]) -> String {
    let output = Command::new("git").arg("-C").arg(ROOT).args(arguments).output().expect("git is installed");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A directory of the caller: from the environment, or the default one below the home directory.
fn folder(variable: &str, default: &str) -> PathBuf {
    let set = std::env::var_os(variable).map(PathBuf::from);
    set.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").expect("a home directory")).join(default))
}
