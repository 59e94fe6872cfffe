//! Commands for operators on PostgreSQL.

use serde_json::{Value, json};
use testkit::{Exit, PostgresServer, ProgramOutput, SECRET, event_body};

use crate::{program, server};

async fn run_on(url: &str, words: &[&str]) -> ProgramOutput {
    program().run(words.iter().copied().chain(["--database", url])).await
}

#[track_caller]
fn check(finished: &ProgramOutput, code: i32, message: &str) {
    assert_eq!(finished.exit, Exit::Code(code), "{finished:?}");
    assert!(
        finished.stdout.contains(message) || finished.stderr.contains(message),
        "{message:?}: {finished:?}"
    );
}

fn report(finished: &ProgramOutput, code: i32) -> Value {
    check(finished, code, "");
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_and_sweep_work_beside_a_running_server() {
    let server = crate::setup().await.environment("BOXOFFICE_SWEEP_EVERY", "1h").start().await;
    let (url, mut service) = (server.setup().url(), server.service());
    let event = server.admin().create_event(&event_body(9)).await;
    service.book_for("late", &event, 2).await.expect(201);
    let clean = report(&run_on(&url, &["audit", "--json"]).await, 0);
    assert_eq!((&clean["bookings"], &clean["clean"]), (&json!(1), &json!(true)), "{clean:#}");
    // The database's clock decides, so the test moves the deadline and not the clock.
    let database = server.setup();
    database.postgres().execute("UPDATE bookings SET hold_expires_at = created_at").await;
    let swept = report(&run_on(&url, &["sweep", "--json"]).await, 0);
    assert_eq!(swept, json!({"bookings": 1, "tickets": 2, "failed": 0}));
    assert_eq!(server.admin().counts(&event).await, (0, 0, 9));
    database.postgres().execute("UPDATE bookings SET total = total * 1000").await;
    check(&run_on(&url, &["audit"]).await, 1, "costs 9000000 EUR, but its items cost 9000");
    database.postgres().execute("UPDATE events SET sold = 3").await;
    check(&run_on(&url, &["audit"]).await, 1, "sold is stored as 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_checks_the_database_server() {
    let postgres = PostgresServer::durable().await;
    let database = postgres.create_database().await;
    let missing = report(&run_on(&database.url(), &["doctor", "--json"]).await, 1);
    let next = &missing["dependencies"][0]["problems"][0]["nextStep"];
    assert!(next.as_str().unwrap().contains("boxoffice migrate"), "{missing:#}");
    check(&run_on(&database.url(), &["migrate"]).await, 0, "up to date");
    let healthy = report(&run_on(&database.url(), &["doctor", "--json"]).await, 0);
    let found = &healthy["dependencies"][0];
    assert!(found["version"].as_str().unwrap().starts_with("PostgreSQL "), "{healthy:#}");
    assert!(found["roundTripMillis"].as_f64() > Some(0.0), "{healthy:#}");
    assert_eq!((&found["primary"], &found["fsync"]), (&json!(true), &json!("on")), "{healthy:#}");
    check(&run_on(&database.url(), &["doctor"]).await, 0, "database: ok");
    drop((database, postgres));

    // A server for quick tests loses commits at a power failure, and `doctor` reports that.
    let not_durable = server().await;
    check(&run_on(&not_durable.setup().url(), &["doctor"]).await, 1, "fsync is off");
}

#[tokio::test]
async fn an_unreachable_database_is_exit_code_3_and_no_password_is_shown() {
    // No process listens on the discard port of this machine.
    let url = "postgres://box:canary-secret@127.0.0.1:9/tickets?connect_timeout=1";
    let serve = ["serve", "--listen", "127.0.0.1:0", "--jwt-secret", SECRET];
    for words in [&["audit"][..], &["migrate"], &["sweep"], &["doctor"], &serve] {
        let finished = run_on(url, words).await;
        check(&finished, 3, "127.0.0.1:9");
        assert!(!format!("{finished:?}").contains("canary-secret"), "{finished:?}");
    }
    let backup = run_on(url, &["backup", "--to", "copy.dump"]).await;
    check(&backup, 1, "pg_dump --format=custom --file=copy.dump postgres://box:********@127.0.0.1:9/tickets");
    let config = run_on(url, &["config", "--jwt-secret", SECRET]).await;
    check(&config, 0, "postgres://box:********@127.0.0.1:9/tickets");
    assert!(!format!("{config:?}").contains("canary-secret"), "{config:?}");
    let wrong = run_on("postgres://box:canary-secret@h/d?sslmode=canary-secret", &["audit"]).await;
    check(&wrong, 2, "sslmode must be");
    assert!(!format!("{wrong:?}").contains("canary-secret"), "{wrong:?}");
}
