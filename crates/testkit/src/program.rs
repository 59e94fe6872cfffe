//! The program under test, and its commands that come to an end.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::process::{Exit, ending};
use crate::wait::{DEADLINE, within};

/// The program under test.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    /// What starts it, where that is not the path itself.
    launcher: Vec<OsString>,
}

/// A command that has come to an end.
#[derive(Clone, Debug)]
pub struct ProgramOutput {
    /// How it ended.
    pub exit: Exit,
    /// What it reported.
    pub stdout: String,
    /// Everything else it said.
    pub stderr: String,
}

impl Program {
    /// The program at a path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), launcher: Vec::new() }
    }

    /// The program started by another one, which must replace itself by it: `nsenter … --`.
    #[must_use]
    pub fn with_launcher(mut self, launcher: impl IntoIterator<Item = OsString>) -> Self {
        self.launcher = launcher.into_iter().collect();
        self
    }

    /// The program started by way of a shell that redirects, inside of whatever starts it already.
    #[must_use]
    pub(crate) fn redirected(mut self, how: &str) -> Self {
        let shell = ["sh", "-c", &format!("exec \"$@\" {how}"), "sh"].map(OsString::from);
        self.launcher.extend(shell);
        self
    }

    /// A command line of the program, in an environment that says nothing about it.
    pub fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut words = self.launcher.iter().map(OsString::as_os_str).chain([self.path.as_os_str()]);
        let mut command = Command::new(words.next().expect("the program itself is a word"));
        command.args(words).args(arguments);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("BOXOFFICE_") {
                command.env_remove(name);
            }
        }
        command.env("NO_COLOR", "1");
        command
    }

    /// Runs a command line to its end.
    pub async fn run(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> ProgramOutput {
        Self::finish(self.command(arguments)).await
    }

    /// Runs any command to its end.
    pub async fn finish(command: Command) -> ProgramOutput {
        Self::finish_within(DEADLINE, command).await
    }

    /// As [`Program::finish`], for a command that takes longer.
    pub async fn finish_within(deadline: Duration, command: Command) -> ProgramOutput {
        let what = format!("{command:?}");
        let mut command = tokio::process::Command::from(command);
        command.stdin(std::process::Stdio::null()).kill_on_drop(true);
        let output = within(deadline, &what, command.output()).await;
        let output = output.unwrap_or_else(|error| panic!("{what}: {error}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ProgramOutput {
            exit: ending(output.status),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Runs the audit on a database file: its exit code and its report.
    pub async fn audit(&self, database: &Path) -> (i32, Value) {
        self.audit_at(&database_url(database)).await
    }

    /// Runs the audit on a database of any kind: its exit code and its report.
    pub async fn audit_at(&self, url: &str) -> (i32, Value) {
        let audit = self.run(["audit", "--json", "--database", url]).await;
        let report = serde_json::from_str(&audit.stdout);
        match (audit.exit, report) {
            (Exit::Code(code), Ok(report)) => (code, report),
            _ => panic!("the audit gave no report: {audit:?}"),
        }
    }

    /// Runs the audit on a database file, which must be clean; its report.
    pub async fn expect_clean(&self, database: &Path) -> Value {
        self.expect_clean_at(&database_url(database)).await
    }

    /// Runs the audit on a database of any kind, which must be clean; its report.
    pub async fn expect_clean_at(&self, url: &str) -> Value {
        let (code, report) = self.audit_at(url).await;
        assert_eq!(code, 0, "{report:#}");
        assert_eq!(report["clean"], true, "{report:#}");
        assert_eq!(report["violations"], Value::Array(Vec::new()), "{report:#}");
        report
    }
}

/// How the command line names a database file.
pub(crate) fn database_url(database: &Path) -> String {
    format!("sqlite://{}", database.display())
}
