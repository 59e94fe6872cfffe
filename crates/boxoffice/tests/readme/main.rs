//! The shell commands of the documents, copied from their text and run as a reader runs them: in a fresh
//! clone, with an empty home directory.
//!
//! Every fenced block of shell commands is run here, or is listed in [`NOT_RUN`] with the reason.

mod blocks;
mod shell;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use testkit::{Exit, Process, ProgramOutput};
use tokio::time::Instant;

use crate::blocks::Blocks;
use crate::shell::Shell;

/// Blocks that are not run: the file, how the block begins, and why.
const NOT_RUN: [(&str, &str, &str); 6] = [
    (
        "README.md",
        "curl -s http://127.0.0.1:8080/v1/bookings",
        "shows what `dev` prints, with placeholders; the lines that it prints are run",
    ),
    (
        "README.md",
        "boxoffice serve --database 'postgres://",
        "names a server of the reader's own; tests/it_postgres starts the same",
    ),
    (
        "README.md",
        "boxoffice serve --nats",
        "needs NATS and its command line tool; tests/it_nats/on_nats/asyncapi.rs sends the request",
    ),
    (
        "docs/reliability.md",
        "make sim SEEDS=10000",
        "takes hours, and is a release build; `make test` runs other seeds by the same code",
    ),
    ("docs/benchmarks.md", "boxoffice bench --target http://127.0.0.1:PORT", "the record of a measurement"),
    ("docs/operations.md", "boxoffice bench --target http://10.0.0.1:8080", "needs two machines"),
];

/// Many times the duration of a release build on a slow machine. No duration is tested.
const BUILD: Duration = Duration::from_hours(1);

#[tokio::test(flavor = "multi_thread")]
async fn every_command_works_in_a_fresh_clone() {
    let mut blocks = Blocks::read();
    let shell = Shell::in_a_fresh_clone();
    println!("not in the clone, because it is not committed: {:?}", shell.uncommitted);

    let first = blocks.take("README.md", "cargo run --release -- dev");
    let commands: Vec<&str> = first.lines().collect();
    let names: Vec<&str> = commands.iter().map(|line| line.split('#').next().unwrap_or("").trim()).collect();
    assert!(names.contains(&"make test"), "the README names `make test` first of all: {names:?}");
    for (command, name) in commands.iter().zip(names) {
        match name {
            // `make test` runs this test.
            "make test" => {}
            "cargo run --release -- dev" => expect_dev_to_take_a_booking(&shell, command).await,
            _ => expect_success(&shell.run(command, BUILD).await, command),
        }
    }

    let install = blocks.take("README.md", "cargo install --locked");
    expect_success(&shell.run(&install, BUILD).await, &install);
    let server = Server::start(&shell, &blocks.take("README.md", "mkdir -p ~/boxoffice")).await;
    let event = server.run(&shell, &blocks.take("README.md", "cd ~/boxoffice")).await;
    let event: Value = serde_json::from_str(&event).expect("the new event");
    assert_eq!((&event["status"], &event["available"]), (&"onSale".into(), &1_000.into()), "{event:#}");
    // Readers of these sections have the program in their path already.
    let installed = |block: String| format!("export PATH=\"$HOME/.local/bin:$PATH\"\n{block}");
    let backup = installed(blocks.take("docs/operations.md", "boxoffice backup"));
    let backup = server.run(&shell, &backup).await;
    assert!(backup.contains("clean"), "{backup}");
    let bench = installed(blocks.take("docs/operations.md", "boxoffice bench --target"));
    let bench = server.run(&shell, &bench).await;
    assert!(bench.contains("oversold 0"), "{bench}");
    expect_private_files(&shell.home().join("boxoffice"));

    for (file, beginning, _) in NOT_RUN {
        blocks.take(file, beginning);
    }
    assert!(blocks.is_empty(), "neither run nor listed with a reason: {blocks:#?}");
}

#[track_caller]
fn expect_success(finished: &ProgramOutput, command: &str) {
    assert_eq!(finished.exit, Exit::Code(0), "{command}: {finished:?}");
}

/// Runs `dev`, and the two commands that it prints.
#[expect(clippy::print_stdout, reason = "the duration is recorded, not checked")]
async fn expect_dev_to_take_a_booking(shell: &Shell, command: &str) {
    let mut dev = Process::start_group(shell.command(command));
    let printed = dev.stdout.find_within(BUILD, |line| line.contains("/confirm").then_some(()));
    assert!(printed.await.is_some(), "`{command}` ended: {}", dev.stderr.tail());
    let began = Instant::now();
    let lines = dev.stdout.all();
    let curls: Vec<&String> = lines.iter().filter(|line| line.starts_with("curl ")).collect();
    let mut statuses = Vec::new();
    for curl in curls {
        let finished = shell.run(curl, testkit::DEADLINE).await;
        let booking: Value =
            serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:?}"));
        statuses.push(booking["status"].clone());
    }
    assert_eq!(statuses, ["pending", "confirmed"], "{lines:#?}");
    println!("the first booking was confirmed {:?} after `dev` was ready", began.elapsed());
    dev.terminate();
    assert_eq!(dev.wait_for_exit().await, Exit::Code(0));
}

/// The server that the README starts, against which the other commands run.
struct Server {
    _process: Process,
    address: String,
}

impl Server {
    async fn start(shell: &Shell, block: &str) -> Self {
        let mut command = shell.command(block);
        // The documented port may be in use here.
        command.env("BOXOFFICE_LISTEN", "127.0.0.1:0");
        let process = Process::start_group(command);
        let ready = |line: &str| {
            let (_, rest) = line.split_once(" ready address=")?;
            rest.split_whitespace().next().map(str::to_owned)
        };
        let address = process.stderr.find(ready).await;
        let address = address.unwrap_or_else(|| panic!("the server ended: {}", process.stderr.tail()));
        Self { _process: process, address }
    }

    /// Runs a block against the server, in the directory of its files. Returns the block's standard output.
    async fn run(&self, shell: &Shell, block: &str) -> String {
        let block = block.replace("127.0.0.1:8080", &self.address);
        let finished = shell.run(&format!("cd ~/boxoffice\n{block}"), testkit::DEADLINE).await;
        expect_success(&finished, &block);
        finished.stdout
    }
}

/// No other user may read the secret or the database.
fn expect_private_files(folder: &Path) {
    for (path, mode) in [(folder.to_owned(), 0o700), (folder.join("secret"), 0o600)] {
        let metadata = path.metadata().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{}", path.display());
    }
}
