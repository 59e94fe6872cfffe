//! The command line: exit codes, standard output and standard error.

use std::process::Command;

use testkit::{Exit, Process, Program, ProgramOutput, SECRET, Setup, event_body, id_of};
use tokio::time::Instant;

use crate::{program, server};

async fn run(arguments: &[&str]) -> ProgramOutput {
    program().run(arguments).await
}

#[track_caller]
fn check(finished: &ProgramOutput, code: i32, message: &str) {
    assert_eq!(finished.exit, Exit::Code(code), "{finished:?}");
    assert!(finished.stderr.contains(message), "{message:?} in {finished:?}");
}

#[tokio::test]
async fn wrong_usage_is_exit_code_2() {
    for words in [
        &["frobnicate"][..],
        &[],
        &["audit", "--frobnicate"],
        &["serve", "--frobnicate", "--jwt-secret", SECRET],
        &["serve", "--listen", "nowhere", "--jwt-secret", SECRET],
        &["serve", "--database", "mysql://x", "--jwt-secret", SECRET],
        &["serve", "--database", "sqlite://", "--jwt-secret", SECRET],
        &["serve", "--hold", "soon", "--jwt-secret", SECRET],
        &["serve", "--hold", "31days", "--jwt-secret", SECRET],
        &["serve", "--log", "loud", "--jwt-secret", SECRET],
        &["dev", "--listen", "0.0.0.0:0"],
        &["token", "--jwt-secret", SECRET],
        &["token", "--sub", "a b", "--jwt-secret", SECRET],
        &["token", "--sub", "ada", "--role", "root", "--jwt-secret", SECRET],
        &["token", "--sub", "ada", "--ttl", "-1h", "--jwt-secret", SECRET],
    ] {
        let finished = run(words).await;
        assert_eq!(finished.exit, Exit::Code(2), "{words:?}: {finished:?}");
        assert!(finished.stdout.is_empty() && !finished.stderr.is_empty(), "{words:?}: {finished:?}");
    }
}

#[tokio::test]
async fn a_missing_or_short_secret_is_exit_code_2_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "short-secret\n").unwrap();
    let file = file.to_str().unwrap();
    check(&run(&["serve"]).await, 2, "--jwt-secret");
    check(&run(&["token", "--sub", "ada"]).await, 2, "--jwt-secret");
    check(&run(&["serve", "--jwt-secret", "thirty-one-bytes-are-not-enough"]).await, 2, "at least 32 bytes");
    check(&run(&["serve", "--jwt-secret", ""]).await, 2, "at least 32 bytes");
    let short = run(&["serve", "--jwt-secret-file", file]).await;
    check(&short, 2, "at least 32 bytes");
    assert!(!short.stderr.contains("short-secret"), "{short:?}");
    check(&run(&["serve", "--jwt-secret-file", "/nowhere/secret"]).await, 2, "No such file");
    let mut command = program().command(["token", "--help"]);
    command.env("BOXOFFICE_JWT_SECRET", SECRET);
    let help = Program::finish(command).await;
    assert_eq!(help.exit, Exit::Code(0));
    assert!(!help.stdout.contains(SECRET), "{help:?}");
}

#[tokio::test]
async fn help_and_version_go_to_standard_output() {
    for words in [&["--help"][..], &["--version"], &["serve", "--help"], &["audit", "--help"]] {
        let finished = run(words).await;
        check(&finished, 0, "");
        assert!(finished.stdout.contains("boxoffice") && finished.stderr.is_empty(), "{finished:?}");
    }
}

#[tokio::test]
async fn unavailable_databases_are_exit_code_3() {
    let folder = tempfile::tempdir().unwrap();
    let url = |name: &str| format!("sqlite://{}", folder.path().join(name).display());
    check(&run(&["audit", "--database", &url("none.db")]).await, 3, "there is no database");
    let lost = url("no/such/folder/boxoffice.db");
    check(&run(&["migrate", "--database", &lost]).await, 3, "boxoffice.db");
    check(&run(&["serve", "--jwt-secret", SECRET, "--database", &lost]).await, 3, "boxoffice.db");
    std::fs::write(folder.path().join("text.db"), "this is no database, it is a text. ".repeat(100)).unwrap();
    check(&run(&["audit", "--database", &url("text.db")]).await, 3, "not a database");
    let server = server().await;
    let owned = format!("sqlite://{}", server.database().display());
    check(&run(&["migrate", "--database", &owned]).await, 3, "owned by another running boxoffice");
    check(&run(&["serve", "--jwt-secret", SECRET, "--database", &owned]).await, 3, "owned by another");
}

#[tokio::test]
async fn other_failures_are_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = folder.path().join("foreign.db");
    let file = rusqlite::Connection::open(&foreign).unwrap();
    file.execute_batch("CREATE TABLE albums (title TEXT)").unwrap();
    drop(file);
    let url = format!("sqlite://{}", foreign.display());
    for words in [&["audit"][..], &["migrate"], &["serve", "--jwt-secret", SECRET]] {
        let words: Vec<&str> = words.iter().copied().chain(["--database", &url]).collect();
        check(&run(&words).await, 1, "not one of boxoffice");
    }
    let newer = folder.path().join("newer.db");
    let url = format!("sqlite://{}", newer.display());
    check(&run(&["migrate", "--database", &url]).await, 0, "");
    rusqlite::Connection::open(&newer).unwrap().pragma_update(None, "user_version", 999).unwrap();
    check(&run(&["audit", "--database", &url]).await, 1, "use a newer boxoffice");
    check(&run(&["serve", "--jwt-secret", SECRET, "--database", &url]).await, 1, "use a newer boxoffice");
    let server = server().await;
    let address = server.address().to_string();
    let fresh = format!("sqlite://{}", folder.path().join("fresh.db").display());
    let taken = run(&["serve", "--jwt-secret", SECRET, "--listen", &address, "--database", &fresh]).await;
    check(&taken, 1, "cannot listen");
}

#[tokio::test]
async fn migrate_is_idempotent_and_serve_can_skip_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("boxoffice.db");
    let url = format!("sqlite://{}", file.display());
    // A database without a schema is older than every version.
    std::fs::write(&file, "").unwrap();
    let serve =
        ["serve", "--no-migrate", "--jwt-secret", SECRET, "--listen", "127.0.0.1:0", "--database", &url];
    check(&run(&serve).await, 1, "boxoffice migrate");
    for _ in 0..2 {
        let migrate = run(&["migrate", "--database", &url]).await;
        check(&migrate, 0, "");
        assert!(migrate.stdout.contains("up to date"), "{migrate:?}");
    }
    let server = Setup::new(program()).on_file(&file).argument("--no-migrate").start().await;
    server.anonymous().get("/v1/events").await.expect(200);
    check(&run(&["audit", "--database", &url]).await, 0, "");
}

#[tokio::test]
async fn tokens_of_the_token_command_are_accepted() {
    let server = server().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let file = file.to_str().unwrap();
    let signed = async |more: &[&str]| {
        let words: Vec<&str> = ["token", "--sub", "ada"].into_iter().chain(more.iter().copied()).collect();
        let token = run(&words).await;
        check(&token, 0, "");
        assert_eq!(token.stdout.lines().count(), 1, "{token:?}");
        testkit::Client::new(server.address(), Some(token.stdout.trim().to_owned()))
    };
    let mut admin = signed(&["--role", "admin", "--jwt-secret", SECRET]).await;
    let event = admin.create_event(&event_body(10)).await;
    let mut ada = signed(&["--jwt-secret-file", file]).await;
    let booking = id_of(&ada.book(&event, 1).await.expect(201));
    ada.confirm(&booking, "pay-1").await.expect_problem(403, "forbidden");
    let mut service = signed(&["--role", "service", "--ttl", "90s", "--jwt-secret", SECRET]).await;
    service.confirm(&booking, "pay-1").await.expect(200);
    let mut ended = signed(&["--ttl", "0s", "--jwt-secret", SECRET]).await;
    ended.get("/v1/bookings").await.expect_problem(401, "unauthenticated");
}

#[tokio::test]
async fn flags_override_environment_variables() {
    let setup =
        Setup::new(program()).environment("BOXOFFICE_HOLD", "10m").environment("BOXOFFICE_LOG", "warn");
    let server = setup.argument("--hold").argument("20m").argument("--log").argument("info").start().await;
    let event = server.admin().post("/v1/events", &event_body(1)).await.expect(201);
    assert_eq!(event["holdSeconds"], 1_200);
}

#[tokio::test]
async fn the_log_is_plain_text_without_a_terminal() {
    let mut command = program().command(["serve", "--listen", "127.0.0.1:0", "--jwt-secret", SECRET]);
    let folder = tempfile::tempdir().unwrap();
    command.current_dir(&folder).env_remove("NO_COLOR");
    let process = Process::start(command);
    process.stderr.find(|line| line.contains("ready").then_some(())).await.expect("a line about readiness");
    assert!(process.stdout.all().is_empty(), "standard output is for data");
    let log = process.stderr.tail();
    assert!(!log.contains('\u{1b}'), "no colours in a pipe: {log:?}");
    assert!(!log.contains(SECRET));
    assert!(folder.path().join("boxoffice.db").exists(), "the default database");
}

/// The commands that `dev` prints can be pasted into a shell.
#[tokio::test]
async fn dev_prints_two_commands_that_work() {
    let curl = Command::new("curl").arg("--version").output();
    assert!(
        curl.is_ok_and(|curl| curl.status.success()),
        "this test needs curl: install it (apt-get install curl)"
    );
    let began = Instant::now();
    let mut dev = Process::start(program().command(["dev", "--listen", "127.0.0.1:0"]));
    let mut printed = Vec::new();
    dev.stdout.find(|line| (line.starts_with("curl") && line.contains("/confirm")).then_some(())).await;
    printed.extend(dev.stdout.all());
    println!("dev was ready after {:?}", began.elapsed());
    assert!(printed.len() <= 12, "{printed:#?}");
    let curls: Vec<&String> = printed.iter().filter(|line| line.starts_with("curl ")).collect();
    assert_eq!(curls.len(), 2, "{printed:#?}");
    let mut bookings = Vec::new();
    for line in curls {
        let mut shell = Command::new("sh");
        shell.args(["-c", line]);
        let finished = Program::finish(shell).await;
        check(&finished, 0, "");
        let response = serde_json::from_str(&finished.stdout);
        bookings.push(response.unwrap_or_else(|error| panic!("{error}: {line} printed {finished:?}")));
    }
    let [booked, confirmed]: [serde_json::Value; 2] = bookings.try_into().unwrap();
    assert_eq!((&booked["status"], &confirmed["status"]), (&"pending".into(), &"confirmed".into()));
    assert_eq!(id_of(&booked), id_of(&confirmed));
    let token = |word: &str| {
        let line = printed.iter().find(|line| line.starts_with(word)).expect("a token is printed");
        line.split_whitespace().last().unwrap().to_owned()
    };
    let address = printed[0].split_once("http://").unwrap().1.split('/').next().unwrap().parse().unwrap();
    let client = |name: &str| testkit::Client::new(address, Some(token(name)));
    assert_eq!(client("Buyer token").booking(&id_of(&booked)).await["status"], "confirmed");
    client("Service token").confirm(&id_of(&booked), "pay-1").await.expect(200);
    client("Service token").get("/v1/stats").await.expect_problem(403, "forbidden");
    client("Admin token").create_event(&event_body(1)).await;
    let names = printed.iter().filter_map(|line| line.split_once(" token:")).map(|(name, _)| name);
    assert_eq!(names.collect::<Vec<_>>(), ["Buyer", "Service", "Admin"]);
    dev.terminate();
    assert_eq!(dev.wait_for_exit().await, Exit::Code(0));
}

/// A port that is in use is an error only if `--listen` names it.
#[tokio::test]
async fn dev_listens_on_a_free_port_where_8080_is_in_use() {
    // Bound here or by another program: in use in either case.
    let _taken = std::net::TcpListener::bind("127.0.0.1:8080");
    let mut dev = Process::start(program().command(["dev"]));
    let line = dev.stdout.find(|line| line.contains("is ready at").then(|| line.to_owned())).await;
    let line = line.unwrap_or_else(|| panic!("{}", dev.stderr.tail()));
    let address = line.split_once("http://").unwrap().1.split('/').next().unwrap().parse().unwrap();
    assert_ne!(address, "127.0.0.1:8080".parse().unwrap());
    testkit::Client::new(address, None).get("/v1/events").await.expect(200);
    let taken = run(&["dev", "--listen", &address.to_string()]).await;
    check(&taken, 1, &format!("cannot listen on {address}"));
    dev.terminate();
    assert_eq!(dev.wait_for_exit().await, Exit::Code(0));
}

#[tokio::test]
async fn dev_stores_its_data_in_the_given_directory() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let below = file.join("deeper").display().to_string();
    check(&run(&["dev", "--data", &below]).await, 1, &below);
    let data = folder.path().join("deep/er");
    let words = ["dev", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
    let mut events = Vec::new();
    for _ in 0..2 {
        let mut dev = Process::start(program().command(words));
        let event = dev.stdout.find(|line| {
            let at = line.find("evt_")?;
            line.get(at..at + 30).map(str::to_owned)
        });
        events.push(event.await.expect("the sample event is named"));
        dev.kill9();
    }
    assert_eq!(events[0], events[1], "the sample event is created once");
    program().expect_clean(&data.join("boxoffice.db")).await;
}
