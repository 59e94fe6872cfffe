//! Generated clients of the API: generated from the OpenAPI document, type-checked, and run against the real
//! server. Each program here creates an event, books, confirms, cancels, and is refused, with
//! the generated types.

mod on_node;
mod on_python;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use testkit::{Exit, Program, ProgramOutput, Server};

/// The folder in which `make setup` installs generators, type checkers and dependencies of generated clients.
const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools/clients");

/// The programs that use generated clients, and their settings.
const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");

/// Many times the duration of a generator or a type checker on a busy machine. No duration is tested.
const TOOL_DEADLINE: Duration = Duration::from_mins(10);

/// A folder with the OpenAPI document, in which a client is generated, checked and run.
struct Workspace {
    folder: TempDir,
}

impl Workspace {
    /// Creates a folder with the OpenAPI document, and with copies of these files of [`PROGRAMS`].
    async fn new(files: &[&str]) -> Self {
        let workspace = Self { folder: tempfile::tempdir().expect("a folder") };
        let printed = program().run(["openapi"]).await;
        std::fs::write(workspace.path("openapi.json"), printed.stdout).expect("a file");
        for file in files {
            std::fs::copy(Path::new(PROGRAMS).join(file), workspace.path(file)).expect("a copy");
        }
        workspace
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// A command of words that are separated by spaces; the first one is a tool.
    fn command(&self, words: &str) -> Command {
        let mut words = words.split_whitespace();
        let tool = words.next().expect("a tool");
        let bin = Path::new(TOOLS).join("bin");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(bin.clone()).chain(std::env::split_paths(&path)));
        let mut command = Command::new(bin.join(tool));
        command.args(words).current_dir(self.folder.path()).env("PATH", path.expect("a path"));
        command.env("PYTHONPATH", self.path("generated")).env("MYPYPATH", self.path("generated"));
        command
    }

    /// Runs a command that must succeed. Returns its standard output and standard error.
    async fn run(&self, words: &str) -> String {
        let finished = Program::finish_within(TOOL_DEADLINE, self.command(words)).await;
        expect_success(&finished, words);
        finished.stdout + &finished.stderr
    }

    /// Generates a client by OpenAPI Generator, whose exit code is 0 even with messages of severity ERROR.
    async fn run_openapi_generator(&self, options: &str) {
        let output = self.run(&format!("openapi-generator-cli generate -i openapi.json {options}")).await;
        let errors: Vec<&str> = output.lines().filter(|line| line.contains(" ERROR ")).collect();
        assert!(errors.is_empty(), "{errors:#?}");
    }

    /// Runs a program that books, and compares its output with the data of the server.
    async fn run_booking_program(&self, words: &str) {
        let server = Server::start(program()).await;
        let tokens = server.tokens();
        let mut command = self.command(words);
        command.env("BASE_URL", format!("http://{}", server.address()));
        command.env("TOKEN_ADMIN", tokens.admin()).env("TOKEN_SERVICE", tokens.service());
        command.env("TOKEN_BUYER", tokens.user("ada"));
        let finished = Program::finish_within(TOOL_DEADLINE, command).await;
        expect_success(&finished, words);
        let ids: Value = serde_json::from_str(&finished.stdout).expect("the ids of a booking and a refund");

        let booking = ids["booking"].as_str().expect("an id");
        let booking = server.user("ada").get(&format!("/v1/bookings/{booking}")).await.expect(200);
        assert_eq!(
            (&booking["status"], &booking["paymentStatus"]),
            (&"cancelled".into(), &"refunded".into())
        );
        let refunds = server.service().get("/v1/refunds").await.expect(200);
        assert_eq!(refunds["data"].as_array().expect("a list").len(), 1, "{refunds:#}");
        assert_eq!(
            (&refunds["data"][0]["id"], &refunds["data"][0]["status"]),
            (&ids["refund"], &"succeeded".into())
        );
        server.expect_clean().await;
    }
}

/// The program under test.
fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_boxoffice"))
}

#[track_caller]
fn expect_success(finished: &ProgramOutput, what: &str) {
    assert_eq!(finished.exit, Exit::Code(0), "{what}:\n{}\n{}", finished.stdout, finished.stderr);
}
