//! A failover to a standby that commits wait for loses nothing that was acknowledged, however the waits end.
//!
//! `STANDBYS=100 STANDBYS_RESULTS=FILE` runs a longer campaign, which goes on where the file ends.

use std::fs::{OpenOptions, read_to_string};
use std::io::Write as _;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use testkit::{
    Client, Database, Load, PostgresServer, Response, Setup, event_body, eventually, number_from_environment,
    text_from_environment,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::program;

/// Rounds where nobody asks for more: one of each of the first two ways.
const ROUNDS: u32 = 2;
const CLIENTS: usize = 8;
/// Longer than a transaction may take and what became of it may be looked for.
const BEYOND_COMMIT_FOLLOWUP: Duration = Duration::from_millis(5_500);
/// Backends that wait for a standby.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";

/// How the waits for the standby end before the primary does.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Whoever asked has been given up.
    PatienceEnds,
    /// An admin cancels them.
    Cancelled,
    /// They do not.
    Killed,
}

impl Way {
    fn of(round: u32) -> Self {
        match round % 3 {
            0 => Self::PatienceEnds,
            1 => Self::Cancelled,
            _ => Self::Killed,
        }
    }

    async fn happen(self, database: &Database, round: u32) {
        match self {
            Self::PatienceEnds => sleep(BEYOND_COMMIT_FOLLOWUP).await,
            Self::Cancelled => {
                for _ in 0..4 {
                    let waits = async || (database.query_number(WAITING).await > 0).then_some(());
                    eventually("a commit waits", waits).await;
                    let cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
                    database.query_number(cancel).await;
                    sleep(Duration::from_millis(200)).await;
                }
            }
            Self::Killed => sleep(Duration::from_millis(u64::from(round) * 7919 % 900)).await,
        }
    }
}

/// One failover under load; how many bookings were acknowledged and found again.
async fn round(round: u32) -> usize {
    let way = Way::of(round);
    let primary = PostgresServer::durable().await;
    let database = primary.create_database().await;
    let standby = primary.standby("one").await;
    primary.set("synchronous_standby_names", "one").await;
    let mut server = Setup::new(program()).on_postgres(&database).start().await;
    let events = [
        server.admin().create_event(&event_body(1_000_000)).await,
        server.admin().create_event(&event_body(1_000_000)).await,
    ];
    let mut load = Load::start(&server, &events, CLIENTS);
    load.wait_for_acknowledged(20 + u64::from(round) * 37 % 200).await;
    standby.pause();
    way.happen(&database, round).await;
    primary.kill9().await;
    server.kill9();
    let journal = load.wait_until_disconnected().await;
    // What was sent to it while it stood still has not reached it: no buffer makes up for it.
    standby.kill9().await;
    standby.start().await;
    standby.promote().await;
    let promoted = Setup::new(program()).on_postgres(&standby.database_of(&database)).start().await;
    // None lost, and none that was said not to have been made.
    journal.check(&mut promoted.admin()).await;
    promoted.expect_clean().await;
    journal.len()
}

#[expect(clippy::print_stdout, reason = "the result of a campaign")]
fn report(file: Option<&str>, line: &str) {
    println!("{line}");
    let Some(file) = file else { return };
    let file = OpenOptions::new().create(true).append(true).open(file);
    writeln!(file.expect("a file for results"), "{line}").expect("a line is written");
}

#[tokio::test(flavor = "multi_thread")]
async fn r1_a_failover_loses_no_acknowledged_booking() {
    let rounds = number_from_environment("STANDBYS").unwrap_or(ROUNDS);
    let results = text_from_environment("STANDBYS_RESULTS");
    let done = results.as_deref().and_then(|file| read_to_string(file).ok());
    let done = done.map_or(0, |text| text.lines().filter(|line| line.starts_with("round ")).count());
    for number in u32::try_from(done).expect("a number of rounds")..rounds {
        let began = Instant::now();
        let kept = round(number).await;
        let (way, took) = (Way::of(number), began.elapsed().as_secs());
        report(
            results.as_deref(),
            &format!("round {number}: {way:?}, {kept} acknowledged bookings, none lost, {took} s"),
        );
    }
}

/// Books under a key.
async fn book(client: &mut Client, key: &str, event: &str) -> Response {
    let body = json!({"eventId": event, "ticketQuantity": 1, "userId": key});
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    client.request_with(Method::POST, "/v1/bookings", &headers, body.to_string()).await
}

/// What only the primary has is acknowledged to nobody: not to who asked, not under its key, not by an instance that
/// knows nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn r1_a_commit_whose_wait_was_cancelled_is_not_acknowledged() {
    let cluster = PostgresServer::durable().await;
    let database = cluster.create_database().await;
    let server = Setup::new(program()).on_postgres(&database).start().await;
    let other = Setup::new(program()).on_postgres(&database).start().await;
    let event = server.admin().create_event(&event_body(100)).await;
    book(&mut server.service(), "before", &event).await.expect(201);
    cluster.set("synchronous_standby_names", "nobody").await;
    let mut asking = JoinSet::new();
    let (mut client, path) = (server.service(), event.clone());
    asking.spawn(async move { book(&mut client, "cancelled", &path).await });
    eventually("its commit waits", async || (database.query_number(WAITING).await > 0).then_some(())).await;
    let booked = "SELECT count(*) FROM bookings WHERE user_id = 'cancelled'";
    assert_eq!(database.query_number(booked).await, 0, "nobody sees it yet");
    let cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    database.query_number(cancel).await;
    let answer = asking.join_next().await.expect("it was asked").expect("an answer");
    answer.expect_problem(503, "outcome_unknown");
    assert_eq!(database.query_number(booked).await, 1, "now everybody does");
    // The instance that committed it knows, and begins nothing; the other one finds an answer under the key.
    for (server, key) in [(&server, "before"), (&server, "cancelled"), (&other, "cancelled")] {
        book(&mut server.service(), key, &event).await.expect_problem(503, "unavailable");
    }
    for server in [&server, &other] {
        let waits = async || {
            let answer = server.anonymous().get("/readyz").await;
            (answer.status == 503).then_some(answer)
        };
        let shown = eventually("readiness says so", waits).await.expect_problem(503, "unavailable");
        assert!(!shown.to_string().contains("standby"), "{shown}");
        let shown = server.anonymous().get("/readyz?verbose").await.expect_problem(503, "unavailable");
        assert!(shown["database"].as_str().is_some_and(|said| said.contains("commits wait")), "{shown}");
    }
    let doctor = program().run(["doctor", "--database", &database.url()]).await;
    assert!(doctor.stdout.contains("- commits wait for standbys that do not answer"), "{doctor:?}");
    assert!(database.query_number(WAITING).await <= 4, "commits that hang do not pile up");
    cluster.set("synchronous_standby_names", "''").await;
    let mut made = Vec::new();
    for server in [&server, &other] {
        let mut client = server.service();
        let answer = eventually("the key is answered", async || {
            let answer = book(&mut client, "cancelled", &event).await;
            (answer.status != 503).then_some(answer)
        });
        made.push(testkit::id_of(&answer.await.expect(201)));
        server.anonymous().get("/readyz").await.expect(200);
    }
    assert_eq!(made[0], made[1]);
    assert_eq!(server.admin().counts(&event).await, (2, 0, 98));
    server.expect_clean().await;
}

/// What readiness and the doctor say of a standby that is named and away, while commits go on.
#[tokio::test(flavor = "multi_thread")]
async fn r1_a_missing_standby_is_reported() {
    let cluster = PostgresServer::durable().await;
    let database = cluster.create_database().await;
    let server = Setup::new(program()).on_postgres(&database).start().await;
    let event = server.admin().create_event(&event_body(9)).await;
    let standby = cluster.standby("one").await;
    cluster.set("synchronous_standby_names", "'ANY 1 (one, \"two\")'").await;
    server.service().book_for("ada", &event, 1).await.expect(201);
    let mut client = server.anonymous();
    assert_eq!(client.get("/readyz").await.expect(200), json!({"status": "degraded"}));
    let shown = client.get("/readyz?verbose").await.expect(200);
    assert!(shown["database"].as_str().is_some_and(|said| said.ends_with("missing: two")), "{shown}");
    database.execute("CREATE ROLE clerk LOGIN").await;
    database.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO clerk").await;
    let blind = database.url().replace("boxoffice@", "clerk@");
    for (url, may_see) in [(database.url(), true), (blind, false)] {
        let said = program().run(["doctor", "--database", &url]).await;
        assert!(said.stdout.contains("are not connected; missing: two"), "{said:?}");
        assert_eq!(said.stdout.contains("may not see whether they keep up"), !may_see, "{said:?}");
        let said = program().run(["doctor", "--json", "--database", &url]).await;
        let said: Value = serde_json::from_str(&said.stdout).expect("JSON");
        let found = &said["dependencies"][0];
        assert_eq!(found["missingStandbys"], json!(["two"]), "{found:#}");
        assert_eq!((&found["connectedStandbys"], &found["standbysVisible"]), (&json!(1), &json!(may_see)));
    }
    cluster.set("synchronous_standby_names", "one").await;
    assert_eq!(client.get("/readyz").await.expect(200), json!({"status": "ready"}));
    standby.kill9().await;
    let away = async || (client.get("/readyz").await.expect(200)["status"] == "degraded").then_some(());
    eventually("none is connected", away).await;
    let shown = client.get("/readyz?verbose").await.expect(200);
    assert!(shown["database"].as_str().is_some_and(|said| said.contains("1 of the standbys")), "{shown}");
}
