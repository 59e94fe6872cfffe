//! Commands for operators: `demo`, `sweep`, `backup`, `doctor` and `completions`.

use std::path::Path;

use rusqlite::Connection;
use serde_json::{Value, json};
use testkit::{Exit, Load, Program, ProgramOutput, event_body, eventually, id_of, with_fields};

use crate::{program, server};

fn url(database: &Path) -> String {
    format!("sqlite://{}", database.display())
}

/// Runs a command on a database file.
async fn run_on(database: &Path, words: &[&str]) -> ProgramOutput {
    let url = url(database);
    program().run(words.iter().copied().chain(["--database", &url])).await
}

/// The JSON report of a command that must exit with this code.
#[track_caller]
fn report(finished: &ProgramOutput, code: i32) -> Value {
    assert_eq!(finished.exit, Exit::Code(code), "{finished:?}");
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}

#[track_caller]
fn check(finished: &ProgramOutput, code: i32, message: &str) {
    assert_eq!(finished.exit, Exit::Code(code), "{finished:?}");
    assert!(finished.stderr.contains(message), "{message:?} in {finished:?}");
}

/// Sorted names of the files in the folder of a file.
fn files_beside(file: &Path) -> Vec<String> {
    let folder = file.parent().and_then(|folder| std::fs::read_dir(folder).ok()).expect("a folder");
    let name = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut names: Vec<String> = folder.map(|entry| name(entry.expect("a readable folder"))).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_demo_sells_every_ticket_once() {
    let finished = program().run(["demo", "--buyers", "300", "--tickets", "40", "--json"]).await;
    let report = report(&finished, 0);
    for (name, count) in [("sold", 40), ("oversold", 0), ("refused", 260), ("failed", 0), ("overloaded", 0)] {
        assert_eq!(report[name], count, "{name} of {report:#}");
    }
    let settled = (&report["confirmed"], &report["cancelled"], &report["expired"]);
    assert_eq!(settled, (&json!(28), &json!(8), &json!(4)), "{report:#}");
    // Every tenth buyer sends one request more than the limit allows.
    assert_eq!(report["limitedAttempts"], 30, "{report:#}");
    assert_eq!((&report["clean"], &report["audit"]["bookings"]), (&json!(true), &json!(40)), "{report:#}");
    let (p50, p99) = (&report["latencyMillis"]["p50"], &report["latencyMillis"]["p99"]);
    assert!(p50.as_f64() > Some(0.0) && p99.as_f64() >= p50.as_f64(), "{report:#}");
    assert!(report["bookingsPerSecond"].as_f64() > Some(0.0), "{report:#}");
    assert!(finished.stderr.is_empty(), "no progress without a terminal: {finished:?}");
}

/// Without the guards the demo oversells, and reports it.
#[cfg(feature = "sabotage")]
#[tokio::test]
async fn a_demo_without_guards_reports_overselling() {
    let mut command = program().command(["demo", "--buyers", "100", "--tickets", "40", "--json"]);
    command.env("BOXOFFICE_SABOTAGE", "capacity,capacity-check");
    let report = report(&Program::finish(command).await, 1);
    assert_eq!((&report["sold"], &report["oversold"]), (&json!(100), &json!(60)), "{report:#}");
    assert_eq!(report["clean"], false, "{report:#}");
}

/// The demo ignores the settings of servers, and leaves no files behind.
#[tokio::test]
async fn a_demo_prints_a_text_report_and_removes_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = program().command(["demo", "--buyers", "20", "--tickets", "50"]);
    command.env("TMPDIR", folder.path()).env("BOXOFFICE_HOLD", "soon").env("BOXOFFICE_BOOK_LIMIT", "1/1h");
    let finished = Program::finish(command).await;
    check(&finished, 0, "");
    for line in
        ["sold      20 of 50 tickets", "oversold  0\n", "refused   0 of 20 buyers", "\nclean: 1 events"]
    {
        assert!(finished.stdout.contains(line), "{line:?} in {finished:?}");
    }
    assert!(finished.stderr.is_empty() && !finished.stdout.contains('\u{1b}'), "{finished:?}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    for words in [["--buyers", "0"], ["--tickets", "0"], ["--buyers", "many"]] {
        check(&program().run(["demo"].into_iter().chain(words)).await, 2, words[0]);
    }
}

/// The reader of the report may close the pipe early.
#[tokio::test]
async fn a_closed_output_pipe_is_not_an_error() {
    let mut shell = std::process::Command::new("sh");
    let demo = format!(
        "{{ '{}' demo --buyers 20 --tickets 5; echo $? >&2; }} | true",
        env!("CARGO_BIN_EXE_boxoffice")
    );
    shell.args(["-c", &demo]);
    assert_eq!(Program::finish(shell).await.stderr, "0\n");
}

/// On a terminal a progress bar is shown, without colours if `NO_COLOR` is set.
#[tokio::test]
async fn a_demo_shows_its_progress_on_a_terminal() {
    let demo = format!("{} demo --buyers 300 --tickets 40", env!("CARGO_BIN_EXE_boxoffice"));
    let mut command = std::process::Command::new("script");
    command.args(["--quiet", "--return", "--command", &demo, "/dev/null"]).env("NO_COLOR", "1");
    command.env("TERM", "xterm");
    let finished = Program::finish(command).await;
    check(&finished, 0, "");
    assert!(finished.stdout.contains("buyers    [") && finished.stdout.contains(" of 300"), "{finished:?}");
    assert!(!finished.stdout.contains("\u{1b}[3"), "no colours: {finished:?}");
}

#[tokio::test]
async fn a_backup_of_a_busy_server_is_consistent() {
    let server = server().await;
    let mut admin = server.admin();
    let event = admin.create_event(&event_body(1_000_000)).await;
    let folder = tempfile::tempdir().unwrap();
    let mut load = Load::start(&server, std::slice::from_ref(&event), 8);
    let mut entries = Vec::new();
    for number in 0..4 {
        load.wait_for_acknowledged(load.acknowledged_count() + 30).await;
        let copy = folder.path().join(format!("copy-{number}.db"));
        let before = load.acknowledged_count();
        let finished = run_on(server.database(), &["backup", "--json", "--to", copy.to_str().unwrap()]).await;
        let report = report(&finished, 0);
        assert_eq!((&report["clean"], &report["file"]), (&json!(true), &json!(copy.to_str().unwrap())));
        assert_eq!(report["bytes"], std::fs::metadata(&copy).unwrap().len(), "{report:#}");
        let audit = program().expect_clean(&copy).await;
        assert_eq!(audit["entries"], report["entries"], "the copy is of one moment: {report:#}");
        assert!(audit["entries"].as_u64().unwrap() > before, "the copy has what was acknowledged");
        entries.push(audit["entries"].as_u64().unwrap());
    }
    load.stop().await;
    assert!(entries.is_sorted() && entries.first() < entries.last(), "the load continued: {entries:?}");
    let files = files_beside(&folder.path().join("copy-0.db"));
    assert_eq!(files, ["copy-0.db", "copy-1.db", "copy-2.db", "copy-3.db"], "no other files");
    // A server can run on a copy.
    let copy = folder.path().join("copy-3.db");
    let again = testkit::Setup::new(program()).on_file(&copy).start().await;
    let mut admin = again.admin();
    id_of(&admin.book_for("late", &event, 1).await.expect(201));
    again.expect_clean().await;
}

#[tokio::test]
async fn a_backup_overwrites_no_file_and_leaves_no_partial_file() {
    let server = server().await;
    server.admin().create_event(&event_body(10)).await;
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("taken.db");
    std::fs::write(&taken, "precious").unwrap();
    let to = |path: &Path| path.to_str().unwrap().to_owned();
    check(&run_on(server.database(), &["backup", "--to", &to(&taken)]).await, 1, "overwrites nothing");
    assert_eq!(std::fs::read(&taken).unwrap(), b"precious");
    check(
        &run_on(server.database(), &["backup", "--to", &to(server.database())]).await,
        1,
        "overwrites nothing",
    );
    let lost = folder.path().join("no/folder/copy.db");
    check(&run_on(server.database(), &["backup", "--to", &to(&lost)]).await, 1, "copy.db");
    let none = folder.path().join("none.db");
    check(
        &run_on(&none, &["backup", "--to", &to(&folder.path().join("copy.db"))]).await,
        3,
        "there is no database",
    );
    check(&run_on(server.database(), &["backup"]).await, 2, "--to");
    assert_eq!(files_beside(&taken), ["taken.db"]);
    // A name in the working directory, and the text report.
    let mut command = program().command(["backup", "--to", "copy.db", "--database", &url(server.database())]);
    command.current_dir(&folder);
    let finished = Program::finish(command).await;
    check(&finished, 0, "");
    assert!(
        finished.stdout.contains("copy.db: ") && finished.stdout.contains("clean: 1 events"),
        "{finished:?}"
    );
    assert_eq!(files_beside(&taken), ["copy.db", "taken.db"]);
}

/// The copy of a damaged database is kept, and the violations are reported.
#[tokio::test]
async fn a_backup_of_inconsistent_data_is_reported() {
    let mut server = server().await;
    server.admin().create_event(&event_body(10)).await;
    server.kill9();
    Connection::open(server.database()).unwrap().execute("UPDATE events SET sold = 3", []).unwrap();
    let copy = server.database().with_file_name("copy.db");
    let finished = run_on(server.database(), &["backup", "--json", "--to", copy.to_str().unwrap()]).await;
    let report = report(&finished, 1);
    assert_eq!(report["clean"], false);
    assert!(!report["violations"].as_array().unwrap().is_empty() && copy.exists(), "{report:#}");
}

#[tokio::test]
async fn a_sweep_frees_overdue_holds() {
    let mut server = server().await;
    let mut admin = server.admin();
    let event = admin.create_event(&with_fields(event_body(10), &json!({"holdSeconds": 1}))).await;
    let mut last = Value::Null;
    for (user, tickets) in [("ada", 2), ("bob", 3), ("eve", 1)] {
        last = admin.book_for(user, &event, tickets).await.expect(201);
    }
    admin.confirm(&id_of(&last), "pay-1").await.expect(200);
    let while_running = run_on(server.database(), &["sweep"]).await;
    check(&while_running, 3, "owned by another running boxoffice");
    server.terminate();
    assert_eq!(server.wait_for_exit().await, Exit::Code(0));
    let database = server.database();
    let mut freed = (0, 0);
    eventually("both unpaid bookings are overdue and freed", async || {
        let report = report(&run_on(database, &["sweep", "--json"]).await, 0);
        assert_eq!(report["failed"], 0);
        let count = |name: &str| report[name].as_u64().unwrap();
        freed = (freed.0 + count("bookings"), freed.1 + count("tickets"));
        (freed.0 == 2).then_some(())
    })
    .await;
    assert_eq!(freed, (2, 5));
    program().expect_clean(database).await;
    let nothing_left = run_on(database, &["sweep"]).await;
    check(&nothing_left, 0, "");
    assert_eq!(nothing_left.stdout, "freed 0 bookings, 0 tickets\n");
}

#[tokio::test]
async fn a_sweep_creates_no_database() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none.db");
    check(&run_on(&none, &["sweep"]).await, 3, "there is no database");
    std::fs::write(&none, "").unwrap();
    check(&run_on(&none, &["sweep"]).await, 1, "boxoffice migrate");
    assert_eq!(std::fs::metadata(&none).unwrap().len(), 0);
}

/// Runs `doctor`, which must exit with this code. Returns its only dependency, the database.
async fn doctor(database: &Path, code: i32) -> Value {
    let report = report(&run_on(database, &["doctor", "--json"]).await, code);
    assert_eq!(report["healthy"], code == 0, "{report:#}");
    let dependency = report["dependencies"][0].clone();
    assert_eq!((&dependency["name"], &dependency["address"]), (&json!("database"), &json!(url(database))));
    assert_eq!(dependency["reachable"], code != 3, "{report:#}");
    assert_eq!(dependency["problems"] == json!([]), code == 0, "{report:#}");
    dependency
}

#[track_caller]
fn expect_advice(dependency: &Value, what: &str, next_step: &str) {
    let problem = &dependency["problems"][0];
    let contains = |name: &str, words: &str| problem[name].as_str().is_some_and(|text| text.contains(words));
    assert!(contains("problem", what) && contains("nextStep", next_step), "{dependency:#}");
}

#[tokio::test]
async fn doctor_reports_a_healthy_database() {
    let mut server = server().await;
    let running = doctor(server.database(), 0).await;
    assert_eq!((&running["journalMode"], &running["inUse"]), (&json!("wal"), &json!(true)), "{running:#}");
    assert!(running["version"].as_str().unwrap().starts_with("SQLite 3."), "{running:#}");
    assert!(running["roundTripMillis"].as_f64() > Some(0.0), "{running:#}");
    assert_eq!(running["schemaVersion"], running["neededSchemaVersion"], "{running:#}");
    let text = run_on(server.database(), &["doctor"]).await;
    check(&text, 0, "");
    assert!(
        text.stdout.starts_with("database: ok") && text.stdout.contains("in use by a running"),
        "{text:?}"
    );
    server.kill9();
    let files = files_beside(server.database());
    assert_eq!(doctor(server.database(), 0).await["inUse"], false);
    let after = files_beside(server.database());
    assert!(after.iter().all(|file| files.contains(file)), "nothing is left behind: {after:?}");
}

#[tokio::test]
async fn doctor_reports_problems_and_the_next_step() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    expect_advice(&doctor(&file("none.db"), 3).await, "there is no database", "boxoffice migrate --database");
    assert!(!file("none.db").exists());
    let lost = doctor(&file("no/folder/box.db"), 3).await;
    expect_advice(&lost, "there is no database", "boxoffice migrate");
    assert!(lost["problems"][1]["nextStep"].as_str().unwrap().contains("create the directory"), "{lost:#}");
    std::fs::write(file("text.db"), "this is no database, it is a text. ".repeat(100)).unwrap();
    expect_advice(&doctor(&file("text.db"), 3).await, "not a database", "SQLite file");
    let foreign = Connection::open(file("foreign.db")).unwrap();
    foreign.execute_batch("CREATE TABLE albums (title TEXT)").unwrap();
    expect_advice(&doctor(&file("foreign.db"), 1).await, "not one of boxoffice", "--database");
    // Following the advice fixes the problem.
    std::fs::write(file("old.db"), "").unwrap();
    expect_advice(&doctor(&file("old.db"), 1).await, "the schema is at version 0", "boxoffice migrate");
    check(&run_on(&file("old.db"), &["migrate"]).await, 0, "");
    doctor(&file("old.db"), 0).await;
    let database = Connection::open(file("old.db")).unwrap();
    database.pragma_update(None, "journal_mode", "delete").unwrap();
    expect_advice(&doctor(&file("old.db"), 1).await, "journal mode is \"delete\"", "boxoffice migrate");
    drop(database);
    check(&run_on(&file("old.db"), &["migrate"]).await, 0, "");
    doctor(&file("old.db"), 0).await;
    Connection::open(file("old.db")).unwrap().pragma_update(None, "user_version", 999).unwrap();
    expect_advice(&doctor(&file("old.db"), 1).await, "knows only", "a newer one");
    let text = run_on(&file("old.db"), &["doctor"]).await;
    assert!(text.stdout.contains("problems found") && text.stdout.contains("\n  next: "), "{text:?}");
}

/// An entry was written while the clock was ahead of the present time.
#[tokio::test]
async fn r2_the_doctor_reports_a_ledger_dated_in_the_future() {
    let mut server = server().await;
    server.admin().create_event(&event_body(10)).await;
    server.kill9();
    doctor(server.database(), 0).await;
    let database = Connection::open(server.database()).unwrap();
    database.execute("UPDATE events SET last_at = last_at + 86400000000", []).unwrap();
    expect_advice(&doctor(server.database(), 1).await, "in the future", "NTP");
}

#[tokio::test]
async fn completions_are_generated_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let finished = program().run(["completions", shell]).await;
        check(&finished, 0, "");
        for word in ["boxoffice", "doctor", "backup", "shutdown-timeout"] {
            assert!(finished.stdout.contains(word), "{word} for {shell}");
        }
    }
    check(&program().run(["completions", "dos"]).await, 2, "dos");
}
