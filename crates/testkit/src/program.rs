//! The program under test, and its commands that run to completion.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::process::{Exit, exit_of};
use crate::wait::{DEADLINE, within};

/// The program under test.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    /// The command line prefix that starts it; often empty.
    launcher: Vec<OsString>,
}

/// The result of a command that has ended.
#[derive(Clone, Debug)]
pub struct ProgramOutput {
    /// The exit code or signal.
    pub exit: Exit,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Program {
    /// The program at a path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), launcher: Vec::new() }
    }

    /// Starts the program through another one that executes it in its own process: `nsenter … --`.
    #[must_use]
    pub fn with_launcher(mut self, launcher: impl IntoIterator<Item = OsString>) -> Self {
        self.launcher = launcher.into_iter().collect();
        self
    }

    /// Starts the program through a shell with a redirection, inside the present launcher.
    #[must_use]
    pub(crate) fn with_redirection(mut self, redirection: &str) -> Self {
        let shell = ["sh", "-c", &format!("exec \"$@\" {redirection}"), "sh"].map(OsString::from);
        self.launcher.extend(shell);
        self
    }

    /// A command of the program, without its environment variables (`BOXOFFICE_…`).
    pub fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut parts = self.launcher.iter().map(OsString::as_os_str).chain([self.path.as_os_str()]);
        let mut command = Command::new(parts.next().expect("the path is there"));
        command.args(parts).args(arguments);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("BOXOFFICE_") {
                command.env_remove(name);
            }
        }
        command.env("NO_COLOR", "1");
        command
    }

    /// Runs the program with these arguments to its end.
    pub async fn run(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> ProgramOutput {
        Self::finish(self.command(arguments)).await
    }

    /// Runs any command to its end.
    pub async fn finish(command: Command) -> ProgramOutput {
        Self::finish_within(DEADLINE, command).await
    }

    /// [`Program::finish`] with another deadline, for longer commands.
    pub async fn finish_within(deadline: Duration, command: Command) -> ProgramOutput {
        let what = format!("{command:?}");
        let mut command = tokio::process::Command::from(command);
        command.stdin(std::process::Stdio::null()).kill_on_drop(true);
        let output = within(deadline, &what, command.output()).await;
        let output = output.unwrap_or_else(|error| panic!("{what}: {error}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ProgramOutput {
            exit: exit_of(output.status),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Audits a database file; returns the exit code and the report.
    pub async fn audit(&self, database: &Path) -> (i32, Value) {
        self.audit_at(&database_url(database)).await
    }

    /// Audits the database at a URL; returns the exit code and the report.
    pub(crate) async fn audit_at(&self, url: &str) -> (i32, Value) {
        let audit = self.run(["audit", "--json", "--database", url]).await;
        let report = serde_json::from_str(&audit.stdout);
        match (audit.exit, report) {
            (Exit::Code(code), Ok(report)) => (code, report),
            _ => panic!("the audit printed no report: {audit:?}"),
        }
    }

    /// Audits a database file, which must be clean; returns the report.
    pub async fn expect_clean(&self, database: &Path) -> Value {
        self.expect_clean_at(&database_url(database)).await
    }

    /// Audits the database at a URL, which must be clean; returns the report.
    pub async fn expect_clean_at(&self, url: &str) -> Value {
        let (code, report) = self.audit_at(url).await;
        assert_eq!(code, 0, "{report:#}");
        assert_eq!(report["clean"], true, "{report:#}");
        assert_eq!(report["violations"], Value::Array(Vec::new()), "{report:#}");
        report
    }
}

/// The URL of a database file.
pub(crate) fn database_url(database: &Path) -> String {
    format!("sqlite://{}", database.display())
}
