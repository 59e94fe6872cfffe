//! The stream of ledger entries: every entry once and in order per event, even if processes are killed.
//!
//! `RELAY_KILLS=300` kills instances that often, and NATS a tenth as often.

use std::time::Duration;

use async_nats::Subscriber;
use async_nats::jetstream::stream::{Config, RetentionPolicy};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use testkit::{
    Database, Load, NatsServer, PostgresServer, RedisServer, Server, Setup, SmallDisk, event_body,
    eventually, id_of, number_from_environment, with_fields, within_deadline,
};
use tokio::time::sleep;

use super::progress::wait_until_ready;
use crate::ledger_stream::{expect_complete, length, read, streams};
use crate::{program, setup};

/// Number of kills unless `RELAY_KILLS` is set.
const KILLS: u32 = 6;

/// Highest number of pauses of a relay until its outdated state is seen on the stream.
#[cfg(feature = "sabotage")]
const PAUSES_MAX: u32 = 12;

#[tokio::test(flavor = "multi_thread")]
async fn a_booking_lifecycle_is_published_once_in_order() {
    for version in NatsServer::every_version() {
        let nats = NatsServer::start_with(version, &[]).await;
        let server = setup(&nats).start().await;
        let client = streams(&nats).await.client();
        let mut subscriber = client.subscribe(">").await.expect("a subscription");
        client.flush().await.expect("NATS has the subscription");
        let (mut admin, mut service) = (server.admin(), server.service());
        let event = admin.create_event(&event_body(10)).await;
        let paid = id_of(&service.book_for("user-1", &event, 2).await.expect(201));
        service.confirm(&paid, "pay-1").await.expect(200);
        let body = json!({"reason": "rain"});
        service.post(&format!("/v1/bookings/{paid}/cancel"), &body).await.expect(200);
        let unpaid = id_of(&service.book_for("user-2", &event, 1).await.expect(201));
        service.cancel(&unpaid).await.expect(200);
        service.confirm(&unpaid, "pay-2").await.expect_problem(409, "invalid_state");
        let refund = id_of(&service.refunds_of("pay-1").await[0]);
        let settled = json!({"outcome": "succeeded", "providerReference": "back-1"});
        service.post(&format!("/v1/refunds/{refund}/settle"), &settled).await.expect(200);
        admin.patch(&format!("/v1/events/{event}"), &json!({"status": "cancelled"})).await.expect(200);
        expect_complete(&nats, &mut admin).await;

        let messages = read(&streams(&nats).await).await;
        let published: Vec<Value> = messages.into_iter().map(|message| message.event).collect();
        let kinds: Vec<&str> = published.iter().filter_map(|event| event["type"].as_str()).collect();
        let wanted = [
            "event.created",
            "booking.created",
            "booking.confirmed",
            "booking.cancelled",
            "refund.requested",
            "booking.created",
            "booking.cancelled",
            "refund.requested",
            "refund.settled",
            "event.cancelled",
        ];
        assert_eq!(kinds, wanted);
        for event in &published {
            assert_eq!(
                (&event["specversion"], &event["datacontenttype"]),
                (&json!("1.0"), &json!("application/json"))
            );
            assert!(event["source"].is_string() && event["time"] == event["data"]["at"], "{event:#}");
        }
        check_booking_data(&published);
        let received = notifications(&mut subscriber, 5).await;
        assert!(received.iter().all(|(_, of, ..)| of.starts_with("bkg_")), "{received:#?}");
        let notification = |subject: &str, of: &str, tickets: u32, reason: Value| {
            (subject.to_owned(), of.to_owned(), json!(tickets), reason)
        };
        assert_eq!(
            received,
            [
                notification("event.booking.created", &paid, 2, Value::Null),
                notification("notification.booking-confirmation", &paid, 2, Value::Null),
                notification("event.booking.cancelled", &paid, 2, json!("rain")),
                notification("event.booking.created", &unpaid, 1, Value::Null),
                notification("event.booking.cancelled", &unpaid, 1, Value::Null),
            ]
        );
    }
}

/// Checks the data of a booking in its entries, as it was at each entry.
fn check_booking_data(published: &[Value]) {
    let of_entry = |index: usize| {
        let data = &published[index]["data"];
        let money = data["total"]["amount"].as_i64();
        (data["userId"].as_str(), money, data["paymentTransactionId"].as_str(), data["reason"].as_str())
    };
    assert_eq!(of_entry(1), (Some("user-1"), Some(9_000), None, None), "before it was paid");
    assert_eq!(of_entry(2), (Some("user-1"), Some(9_000), Some("pay-1"), None));
    assert_eq!(of_entry(3), (Some("user-1"), Some(9_000), Some("pay-1"), Some("rain")));
    assert_eq!(of_entry(6), (Some("user-2"), Some(4_500), None, None), "not paid in time");
    assert_eq!(of_entry(4), (None, None, None, None), "the entry of a refund has no booking data");
}

/// Waits for this number of notifications in the format of the MongoDB booking service. Returns subject,
/// booking, tickets and reason of each.
async fn notifications(subscriber: &mut Subscriber, count: usize) -> Vec<(String, String, Value, Value)> {
    let mut received = Vec::new();
    while received.len() < count {
        let message = within_deadline("a notification", subscriber.next()).await.expect("a message");
        if ["event.", "notification."].iter().any(|prefix| message.subject.starts_with(prefix)) {
            let body: Value = serde_json::from_slice(&message.payload).expect("JSON");
            assert!(body["eventId"].is_string() && body["timestamp"].is_string(), "{body:#}");
            let of = body["bookingId"].as_str().expect("an id").to_owned();
            let (tickets, reason) = (body["ticketQuantity"].clone(), body["reason"].clone());
            received.push((message.subject.to_string(), of, tickets, reason));
        }
    }
    received
}

/// A stream that is deleted, purged or lost with its server is rebuilt from the ledger, without any new sale.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_stream_is_rebuilt_from_the_ledger() {
    for version in NatsServer::every_version() {
        let mut nats = NatsServer::start_with(version, &[]).await;
        let server = setup(&nats).start().await;
        let (events, mut admin) = (sell_tickets(&server, 3, 40).await, server.admin());
        let before = expect_complete(&nats, &mut admin).await;
        let texts = async |nats: &NatsServer| {
            let messages = read(&streams(nats).await).await;
            let mut texts: Vec<String> = messages.iter().map(|message| message.event.to_string()).collect();
            texts.sort_unstable();
            texts
        };
        let first = texts(&nats).await;
        let jetstream = streams(&nats).await;
        jetstream.delete_stream("BOXOFFICE").await.expect("the stream is deleted");
        assert_eq!(expect_complete(&nats, &mut admin).await, before);
        assert_eq!(texts(&nats).await, first, "the same messages again");
        jetstream
            .get_stream("BOXOFFICE")
            .await
            .expect("the stream exists")
            .purge()
            .await
            .expect("the stream is purged");
        assert_eq!(expect_complete(&nats, &mut admin).await, before);
        nats.kill9();
        nats.restart_empty().await;
        assert_eq!(expect_complete(&nats, &mut admin).await, before);
        server.service().book_for("user-9", &events[0], 1).await.expect(201);
        assert_eq!(expect_complete(&nats, &mut admin).await, before + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_without_nats_is_published_afterwards() {
    let mut nats = NatsServer::start().await;
    let server = setup(&nats).start().await;
    nats.kill9();
    sell_tickets(&server, 5, 200).await;
    server.expect_clean().await;
    eventually("all entries are counted as unpublished", async || {
        let ready = server.anonymous().get("/readyz?verbose").await.expect(200);
        (ready["nats"]["relay"]["pendingEntries"] == 1_005).then_some(())
    })
    .await;
    let url = format!("sqlite://{}", server.database().display());
    let doctor = program().run(["doctor", "--json", "--database", &url]).await;
    assert!(doctor.stdout.contains(r#""unpublishedEntries":1005"#), "{doctor:?}");
    nats.restart().await;
    assert_eq!(expect_complete(&nats, &mut server.admin()).await, 1_005);
    eventually("every entry is published", async || {
        let ready = server.anonymous().get("/readyz?verbose").await.expect(200);
        (ready["nats"]["relay"]["pendingEntries"] == 0 && ready["status"] == "ready").then_some(())
    })
    .await;
    // Messages that NATS acknowledged too late are on the stream, and not counted.
    let published = server.metric("boxoffice_relay_published_total").await;
    assert!((1..=1_005).contains(&published), "{published}");
}

/// A full disk of NATS stops publishing, but not sales. Once there is room, all entries are published.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_nats_does_not_stop_sales() {
    let disk = match SmallDisk::mount(24) {
        Ok(disk) => disk,
        Err(why) => return println!("no small disk on this machine, so not tested: {why}"),
    };
    let mut nats = NatsServer::start_on_disk(&disk).await;
    let server = setup(&nats).start().await;
    sell_tickets(&server, 1, 10).await;
    expect_complete(&nats, &mut server.admin()).await;
    disk.write_ballast(24 * 1024 * 1024);
    sell_tickets(&server, 2, 200).await;
    eventually("NATS stores no more messages", async || {
        let ready = server.anonymous().get("/readyz?verbose").await.expect(200);
        (ready["nats"]["status"] != "ok").then_some(())
    })
    .await;
    server.expect_clean().await;
    disk.remove_ballast();
    // Some versions disable their streams until they are restarted.
    nats.kill9();
    nats.restart().await;
    assert_eq!(expect_complete(&nats, &mut server.admin()).await, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_stream_is_left_unchanged() {
    let nats = NatsServer::start().await;
    let streams = streams(&nats).await;
    let foreign = Config {
        name: "BOXOFFICE".to_owned(),
        subjects: vec!["boxoffice.ledger.*".to_owned(), "other".to_owned()],
        ..Config::default()
    };
    streams.create_stream(foreign).await.expect("a stream");
    expect_nats_error(&nats, "does not belong to boxoffice").await;
    streams.delete_stream("BOXOFFICE").await.expect("the stream is deleted");
    let by_interest = Config {
        name: "BOXOFFICE".to_owned(),
        subjects: vec!["boxoffice.ledger.*".to_owned()],
        retention: RetentionPolicy::Interest,
        ..Config::default()
    };
    streams.create_stream(by_interest).await.expect("a stream");
    expect_nats_error(&nats, "discards messages").await;
    assert_eq!(length(&streams).await, 0);
    expect_nats_error(&NatsServer::start_without_streams().await, "has no JetStream").await;
}

/// A stream of another database, or of a database that was restored from a backup: nothing is overwritten.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ahead_of_the_ledger_is_left_unchanged() {
    let nats = NatsServer::start().await;
    let first = setup(&nats).start().await;
    sell_tickets(&first, 1, 5).await;
    let before = expect_complete(&nats, &mut first.admin()).await;
    drop(first);
    expect_nats_error(&nats, "has more messages").await;
    assert_eq!(length(&streams(&nats).await).await, before as u64);
}

/// One event's entries cannot be decoded: they wait and are reported. Those of other events are published.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_entry_does_not_delay_other_events() {
    let mut nats = NatsServer::start().await;
    let database = PostgresServer::shared().await.create_database().await;
    let server = setup(&nats).on_postgres(&database).start().await;
    let events = sell_tickets(&server, 2, 3).await;
    let before = expect_complete(&nats, &mut server.admin()).await as u64;
    database.execute("ALTER TABLE ledger ADD COLUMN original_actor text").await;
    let damage = "UPDATE ledger SET original_actor = actor, actor = 'nobody' WHERE event_id =";
    let relay = async || server.anonymous().get("/readyz?verbose").await.expect(200)["nats"]["relay"].clone();
    // The entry is damaged before it is published, while NATS is down.
    nats.kill9();
    eventually("the outage of NATS is noticed", async || (relay().await["active"] == false).then_some(()))
        .await;
    for event in &events {
        server.service().book_for("late", event, 1).await.expect(201);
    }
    let first = "(SELECT event_id FROM ledger GROUP BY 1 ORDER BY min(at) LIMIT 1) AND seq = 5";
    assert_eq!(database.execute(&format!("{damage} {first}")).await, 1);
    nats.restart().await;
    server.service().book_for("later", &events[1], 1).await.expect(201);
    let relay_status = eventually("every readable entry is published", async || {
        let relay = relay().await;
        let stuck = relay["status"].as_str().is_some_and(|status| status.contains("cannot be decoded"));
        (stuck && relay["pendingEntries"] == 1 && relay["active"] == true).then_some(relay)
    })
    .await;
    assert!(
        relay_status["status"].as_str().is_some_and(|status| status.contains(&events[0])),
        "{relay_status}"
    );
    assert_eq!(length(&streams(&nats).await).await, before + 2);
    assert_eq!(
        database.execute("UPDATE ledger SET actor = original_actor WHERE original_actor IS NOT NULL").await,
        1
    );
    eventually("the entry is published once it is readable", async || {
        (relay().await["status"] == "ok").then_some(())
    })
    .await;
    expect_complete(&nats, &mut server.admin()).await;
}

/// An entry of a kind that this version does not know is published as it is.
#[tokio::test(flavor = "multi_thread")]
async fn entries_of_unknown_kinds_are_published() {
    let nats = NatsServer::start().await;
    let database = PostgresServer::shared().await.create_database().await;
    let server = setup(&nats).on_postgres(&database).start().await;
    let events = sell_tickets(&server, 1, 3).await;
    let before = expect_complete(&nats, &mut server.admin()).await;
    let insert = "WITH event AS (UPDATE events SET seq = seq + 1 RETURNING id, seq)
        INSERT INTO ledger (event_id, seq, type, lines, quantity, from_status, to_status, available_after,
               actor, request_id, at)
        SELECT event_id, event.seq, 'event.moved', '[]', 0, 'onSale', 'inTransit', available_after, actor,
               request_id, at
        FROM event JOIN ledger ON ledger.event_id = event.id AND ledger.seq = event.seq - 1";
    assert_eq!(database.execute(insert).await, 1);
    server.service().book_for("later", &events[0], 1).await.expect(201);
    assert_eq!(expect_complete(&nats, &mut server.admin()).await, before + 2);
    let messages = read(&streams(&nats).await).await;
    let moved = &messages[before].event;
    assert_eq!(moved["type"], "event.moved", "{moved:#}");
    assert_eq!((&moved["data"]["from"], &moved["data"]["to"]), (&json!("onSale"), &json!("inTransit")));
}

/// Two relays without a lock between them: one is paused while the other continues, so its state is outdated.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_relay_publishes_no_duplicates() {
    let mut relays = TwoRelays::start(|setup| setup).await;
    relays.pause_second_while_first_publishes("user-1").await;
    relays.servers[1].service().book_for("user-2", &relays.event, 1).await.expect(201);
    expect_complete(&relays.nats, &mut relays.servers[0].admin()).await;
}

#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread")]
async fn without_the_expected_sequence_entries_are_published_twice() {
    let unguarded = |setup: Setup| setup.environment("BOXOFFICE_SABOTAGE", "stream-sequence");
    let mut relays = TwoRelays::start(unguarded).await;
    let streams = streams(&relays.nats).await;
    // A read that a pause interrupts can time out. Then the relay opens another session, whose state is not
    // outdated, and is paused again.
    for pause in 0..PAUSES_MAX {
        relays.pause_second_while_first_publishes(&format!("first-{pause}")).await;
        let user = format!("second-{pause}");
        relays.servers[1].service().book_for(&user, &relays.event, 1).await.expect(201);
        let entries = relays.database.query_number("SELECT count(*) FROM ledger").await;
        let twice = async {
            while length(&streams).await <= entries.unsigned_abs() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(5), twice).await.is_ok() {
            return;
        }
    }
    panic!("no entry is on the stream twice after {PAUSES_MAX} pauses");
}

/// Two instances on one database, each with a relay.
struct TwoRelays {
    servers: Vec<Server>,
    event: String,
    database: Database,
    nats: NatsServer,
}

impl TwoRelays {
    /// Starts both instances and creates an event.
    async fn start(configure: impl Fn(Setup) -> Setup) -> Self {
        let nats = NatsServer::start().await;
        let database = PostgresServer::shared().await.create_database().await;
        let mut servers = Vec::new();
        for _ in 0..2 {
            servers.push(configure(setup(&nats).on_postgres(&database)).start().await);
        }
        let event = servers[0].admin().create_event(&event_body(100)).await;
        Self { servers, event, database, nats }
    }

    /// Pauses the second instance while the first one publishes five entries, for longer than NATS detects
    /// duplicates.
    async fn pause_second_while_first_publishes(&mut self, user: &str) {
        for server in &self.servers {
            eventually("both relays are active", async || {
                let ready = server.anonymous().get("/readyz?verbose").await.expect(200);
                (ready["nats"]["relay"]["active"] == true && ready["nats"]["relay"]["pendingEntries"] == 0)
                    .then_some(())
            })
            .await;
        }
        self.servers[1].pause();
        for _ in 0..5 {
            self.servers[0].service().book_for(user, &self.event, 1).await.expect(201);
        }
        eventually("the first one has published, and saved its cursor", async || {
            let unpublished =
                "SELECT (SELECT count(*) FROM ledger) - coalesce(sum(seq), 0)::bigint FROM cursors";
            (self.database.query_number(unpublished).await == 0).then_some(())
        })
        .await;
        sleep(Duration::from_millis(2_500)).await;
        self.servers[1].resume();
    }
}

/// Instances are killed under load, and NATS, too: at the end every entry is published once and in order.
#[tokio::test(flavor = "multi_thread")]
async fn kills_and_restarts_lose_and_repeat_nothing() {
    let kills = number_from_environment("RELAY_KILLS").unwrap_or(KILLS);
    println!("{}", kill_and_restart(kills, |setup| setup).await);
}

/// Tests with a lock, so that one relay at a time is active.
mod on_redis {
    use super::*;

    /// U3: the error of an instance that waits for leadership ends once NATS, or PostgreSQL, is back.
    #[tokio::test(flavor = "multi_thread")]
    async fn u3_a_relay_that_waits_for_leadership_becomes_ready_again() {
        let (mut nats, redis) = (NatsServer::start().await, RedisServer::start().await);
        let database = PostgresServer::shared().await.create_database().await;
        let mut servers = Vec::new();
        for _ in 0..2 {
            let setup = setup(&nats).argument("--redis").argument(redis.url(0));
            servers.push(setup.on_postgres(&database).start().await);
        }
        for server in &servers {
            wait_until_ready(server).await;
        }
        nats.kill9();
        for server in &servers {
            eventually("its relay reports an error", async || {
                let ready = server.anonymous().get("/readyz?verbose").await.json();
                (ready["nats"]["relay"]["status"] != "ok").then_some(())
            })
            .await;
        }
        nats.restart().await;
        for server in &servers {
            wait_until_ready(server).await;
        }
        let active = async |server: &Server| server.metric("boxoffice_relay_active").await;
        assert_eq!(active(&servers[0]).await + active(&servers[1]).await, 1, "one is active, one waits");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn kills_under_locks_lose_and_repeat_nothing() {
        let kills = number_from_environment("RELAY_KILLS").unwrap_or(KILLS / 2);
        let redis = RedisServer::start().await;
        let locked = |setup: Setup| setup.argument("--redis").argument(redis.url(0));
        println!("with locks: {}", kill_and_restart(kills, locked).await);
    }
}

async fn kill_and_restart(kills: u32, configure: impl Fn(Setup) -> Setup) -> String {
    let mut nats = NatsServer::start().await;
    let database = PostgresServer::shared().await.create_database().await;
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(configure(setup(&nats).on_postgres(&database)).start().await);
    }
    let mut events = Vec::new();
    for _ in 0..4 {
        events.push(servers[0].admin().create_event(&event_body(100_000)).await);
    }
    let mut restarts = 0;
    for kill in 0..kills {
        let index = kill as usize % servers.len();
        let mut loads: Vec<Load> = servers
            .iter()
            .enumerate()
            .map(|(number, server)| Load::start(server, &events[number..=number], 3))
            .collect();
        loads[index].wait_for_acknowledged(60).await;
        if kill % 10 < 4 && (kills <= 10 || kill % 10 == 0) {
            nats.kill9();
            loads[index].wait_for_acknowledged(90).await;
            nats.restart().await;
            restarts += 1;
        }
        let mut killed = servers.remove(index);
        killed.kill9();
        for (number, load) in loads.into_iter().enumerate() {
            let journal =
                if number == index { load.wait_until_disconnected().await } else { load.stop().await };
            assert!(!journal.is_empty());
        }
        servers.insert(index, killed.restart().await);
    }
    let entries = expect_complete(&nats, &mut servers[0].admin()).await;
    servers[0].expect_clean().await;
    format!(
        "{kills} kills and {restarts} restarts of NATS: {entries} entries, each published once and in order"
    )
}

/// Creates events, and books a ticket of each for this number of users. Returns the ids of the events.
pub(super) async fn sell_tickets(server: &Server, events: usize, bookings: usize) -> Vec<String> {
    let mut created = Vec::new();
    for _ in 0..events {
        let event = with_fields(event_body(10_000), &json!({"name": "A sale"}));
        created.push(server.admin().create_event(&event).await);
    }
    for event in &created {
        let buyers = (0..bookings).map(|buyer| async move {
            let mut service = server.service();
            service.book_for(&format!("user-{buyer}"), event, 1).await.expect(201);
        });
        futures_util::stream::iter(buyers).buffer_unordered(16).collect::<Vec<()>>().await;
    }
    created
}

/// Starts a server, which sells, and reports this error of NATS in readiness, metrics and `doctor`.
async fn expect_nats_error(nats: &NatsServer, error: &str) {
    let server = Setup::new(program()).argument("--nats").argument(nats.url()).start().await;
    sell_tickets(&server, 1, 3).await;
    let status = eventually("readiness reports the error", async || {
        let ready = server.anonymous().get("/readyz?verbose").await.expect(200);
        let status = ready["nats"]["status"].as_str().expect("a status").to_owned();
        (ready["status"] == "degraded" && status.contains(error)).then_some(status)
    })
    .await;
    let metrics = server.anonymous().get("/metrics").await.body;
    let metrics = String::from_utf8_lossy(&metrics);
    assert!(metrics.contains("\nboxoffice_relay_error 1\n"), "{status}: {metrics}");
    let url = format!("sqlite://{}", server.database().display());
    let doctor = program().run(["doctor", "--json", "--nats", &nats.url(), "--database", &url]).await;
    if error != "has more messages" {
        assert_eq!(doctor.exit, testkit::Exit::Code(1), "{}", doctor.stderr);
        assert!(doctor.stdout.contains(error), "{}", doctor.stdout);
    }
    server.expect_clean().await;
}
