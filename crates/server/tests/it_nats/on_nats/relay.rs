//! What the ledger says, on the stream: every entry once, in order per event, whatever dies.
//!
//! `BELLS=300` kills instances so often, and NATS a tenth as often.

use std::time::Duration;

use async_nats::Subscriber;
use async_nats::jetstream::stream::{Config, RetentionPolicy};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use testkit::{
    Load, NatsServer, PostgresServer, RedisServer, Server, Setup, SmallDisk, event_body, eventually, id_of,
    number_from_environment, with_fields, within_deadline,
};
use tokio::time::sleep;

use super::progress::ready;
use crate::listener::{complete, length, read, streams};
use crate::{program, setup};

/// Kills where nobody asks for more.
const KILLS: u32 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn a_booking_lifecycle_is_published_once_in_order() {
    for version in NatsServer::every_version() {
        let nats = NatsServer::start_with(version, &[]).await;
        let server = setup(&nats).start().await;
        let client = streams(&nats).await.client();
        let mut listener = client.subscribe(">").await.expect("a subscription");
        client.flush().await.expect("NATS has it");
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
        complete(&nats, &mut admin).await;

        let told: Vec<Value> = read(&streams(&nats).await).await.into_iter().map(|told| told.event).collect();
        let kinds: Vec<&str> = told.iter().filter_map(|event| event["type"].as_str()).collect();
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
        for event in &told {
            assert_eq!(
                (&event["specversion"], &event["datacontenttype"]),
                (&json!("1.0"), &json!("application/json"))
            );
            assert!(event["source"].is_string() && event["time"] == event["data"]["at"], "{event:#}");
        }
        check_what_is_said(&told);
        let announced = announcements(&mut listener, 5).await;
        assert!(announced.iter().all(|(_, of, ..)| of.starts_with("bkg_")), "{announced:#?}");
        let news = |subject: &str, of: &str, tickets: u32, reason: Value| {
            (subject.to_owned(), of.to_owned(), json!(tickets), reason)
        };
        assert_eq!(
            announced,
            [
                news("event.booking.created", &paid, 2, Value::Null),
                news("notification.booking-confirmation", &paid, 2, Value::Null),
                news("event.booking.cancelled", &paid, 2, json!("rain")),
                news("event.booking.created", &unpaid, 1, Value::Null),
                news("event.booking.cancelled", &unpaid, 1, Value::Null),
            ]
        );
    }
}

/// What belongs to a booking stands in its entries, as it stood then.
fn check_what_is_said(told: &[Value]) {
    let said = |place: usize| {
        let data = &told[place]["data"];
        let money = data["total"]["amount"].as_i64();
        (data["userId"].as_str(), money, data["paymentTransactionId"].as_str(), data["reason"].as_str())
    };
    assert_eq!(said(1), (Some("user-1"), Some(9_000), None, None), "before it was paid");
    assert_eq!(said(2), (Some("user-1"), Some(9_000), Some("pay-1"), None));
    assert_eq!(said(3), (Some("user-1"), Some(9_000), Some("pay-1"), Some("rain")));
    assert_eq!(said(6), (Some("user-2"), Some(4_500), None, None), "never paid in time");
    assert_eq!(said(4), (None, None, None, None), "a refund is no booking");
}

/// What the original service's subscribers hear: subject, booking, tickets and reason of so many.
async fn announcements(listener: &mut Subscriber, count: usize) -> Vec<(String, String, Value, Value)> {
    let mut announced = Vec::new();
    while announced.len() < count {
        let message = within_deadline("an announcement", listener.next()).await.expect("a message");
        if ["event.", "notification."].iter().any(|prefix| message.subject.starts_with(prefix)) {
            let body: Value = serde_json::from_slice(&message.payload).expect("JSON");
            assert!(body["eventId"].is_string() && body["timestamp"].is_string(), "{body:#}");
            let of = body["bookingId"].as_str().expect("an id").to_owned();
            let (tickets, reason) = (body["ticketQuantity"].clone(), body["reason"].clone());
            announced.push((message.subject.to_string(), of, tickets, reason));
        }
    }
    announced
}

/// A stream that was lost is filled again from the ledger, whichever way it was lost, while nobody sells.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_stream_is_rebuilt_from_the_ledger() {
    for version in NatsServer::every_version() {
        let mut nats = NatsServer::start_with(version, &[]).await;
        let server = setup(&nats).start().await;
        let (events, mut admin) = (sold(&server, 3, 40).await, server.admin());
        let before = complete(&nats, &mut admin).await;
        let texts = async |nats: &NatsServer| {
            let told = read(&streams(nats).await).await;
            let mut texts: Vec<String> = told.iter().map(|told| told.event.to_string()).collect();
            texts.sort_unstable();
            texts
        };
        let first = texts(&nats).await;
        let gone = streams(&nats).await;
        gone.delete_stream("BOXOFFICE").await.expect("it goes");
        assert_eq!(complete(&nats, &mut admin).await, before);
        assert_eq!(texts(&nats).await, first, "it says the same again");
        gone.get_stream("BOXOFFICE").await.expect("it is there").purge().await.expect("it is emptied");
        assert_eq!(complete(&nats, &mut admin).await, before);
        nats.kill9();
        nats.restart_empty().await;
        assert_eq!(complete(&nats, &mut admin).await, before);
        server.service().book_for("user-9", &events[0], 1).await.expect(201);
        assert_eq!(complete(&nats, &mut admin).await, before + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_without_nats_is_published_afterwards() {
    let mut nats = NatsServer::start().await;
    let server = setup(&nats).start().await;
    nats.kill9();
    sold(&server, 5, 200).await;
    server.expect_clean().await;
    eventually("all of it is counted as not told", async || {
        let ready = server.anonymous().get("/readyz?verbose").await.expect(200);
        (ready["nats"]["relay"]["behind"] == 1_005).then_some(())
    })
    .await;
    let url = format!("sqlite://{}", server.database().display());
    let doctor = program().run(["doctor", "--json", "--database", &url]).await;
    assert!(doctor.stdout.contains(r#""unpublishedEntries":1005"#), "{doctor:?}");
    nats.restart().await;
    assert_eq!(complete(&nats, &mut server.admin()).await, 1_005);
    eventually("nothing is left to tell", async || {
        let ready = server.anonymous().get("/readyz?verbose").await.expect(200);
        (ready["nats"]["relay"]["behind"] == 0 && ready["status"] == "ready").then_some(())
    })
    .await;
    // What NATS acknowledged too late is on the stream, and not counted.
    let published = server.metric("boxoffice_relay_published_total").await;
    assert!((1..=1_005).contains(&published), "{published}");
}

/// A full disk under NATS stops the bell, not the sale; with room again, all is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_nats_does_not_stop_sales() {
    let disk = match SmallDisk::mount(24) {
        Ok(disk) => disk,
        Err(why) => return println!("no small disk on this machine, so not tested: {why}"),
    };
    let mut nats = NatsServer::start_on_disk(&disk).await;
    let server = setup(&nats).start().await;
    sold(&server, 1, 10).await;
    complete(&nats, &mut server.admin()).await;
    disk.write_ballast(24 * 1024 * 1024);
    sold(&server, 2, 200).await;
    eventually("NATS stores nothing more", async || {
        let ready = server.anonymous().get("/readyz?verbose").await.expect(200);
        (ready["nats"]["status"] != "ok").then_some(())
    })
    .await;
    server.expect_clean().await;
    disk.remove_ballast();
    // Some versions have switched their streams off, until they are started again.
    nats.kill9();
    nats.restart().await;
    assert_eq!(complete(&nats, &mut server.admin()).await, 413);
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
    says(&nats, "is not this program's").await;
    streams.delete_stream("BOXOFFICE").await.expect("it goes");
    let forgetful = Config {
        name: "BOXOFFICE".to_owned(),
        subjects: vec!["boxoffice.ledger.*".to_owned()],
        retention: RetentionPolicy::Interest,
        ..Config::default()
    };
    streams.create_stream(forgetful).await.expect("a stream");
    says(&nats, "forgets messages").await;
    assert_eq!(length(&streams).await, 0);
    says(&NatsServer::start_without_streams().await, "has no JetStream").await;
}

/// As after a database that was restored from a copy: nothing is overwritten.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ahead_of_the_ledger_is_left_unchanged() {
    let nats = NatsServer::start().await;
    let first = setup(&nats).start().await;
    sold(&first, 1, 5).await;
    let before = complete(&nats, &mut first.admin()).await;
    drop(first);
    says(&nats, "knows more").await;
    assert_eq!(length(&streams(&nats).await).await, before as u64);
}

/// One event's entries cannot be read: they wait, readiness says so, and everybody else's are told.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_entry_does_not_delay_other_events() {
    let mut nats = NatsServer::start().await;
    let database = PostgresServer::shared().await.create_database().await;
    let server = setup(&nats).on_postgres(&database).start().await;
    let events = sold(&server, 2, 3).await;
    let before = complete(&nats, &mut server.admin()).await as u64;
    database.execute("ALTER TABLE ledger ADD COLUMN kept text").await;
    let damage = "UPDATE ledger SET kept = actor, actor = 'nobody' WHERE event_id =";
    let relay = async || server.anonymous().get("/readyz?verbose").await.expect(200)["nats"]["relay"].clone();
    // Damaged before it is told: while NATS is away.
    nats.kill9();
    eventually("NATS is missed", async || (relay().await["fills"] == false).then_some(())).await;
    for event in &events {
        server.service().book_for("late", event, 1).await.expect(201);
    }
    let first = "(SELECT event_id FROM ledger GROUP BY 1 ORDER BY min(at) LIMIT 1) AND seq = 5";
    assert_eq!(database.execute(&format!("{damage} {first}")).await, 1);
    nats.restart().await;
    server.service().book_for("later", &events[1], 1).await.expect(201);
    let shown = eventually("all that can be told is told", async || {
        let relay = relay().await;
        let stuck = relay["status"].as_str().is_some_and(|status| status.contains("cannot be read"));
        (stuck && relay["behind"] == 1 && relay["fills"] == true).then_some(relay)
    })
    .await;
    assert!(shown["status"].as_str().is_some_and(|status| status.contains(&events[0])), "{shown}");
    assert_eq!(length(&streams(&nats).await).await, before + 2);
    assert_eq!(database.execute("UPDATE ledger SET actor = kept WHERE kept IS NOT NULL").await, 1);
    eventually("it is told as soon as it can be", async || (relay().await["status"] == "ok").then_some(()))
        .await;
    complete(&nats, &mut server.admin()).await;
}

/// Two relays without a lock between them; one is held up while the other goes on. What it knew is old.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_relay_publishes_no_duplicates() {
    let (nats, servers, event) = held_up(|setup| setup).await;
    servers[1].service().book_for("user-2", &event, 1).await.expect(201);
    complete(&nats, &mut servers[0].admin()).await;
}

#[cfg(feature = "sabotage")]
#[tokio::test(flavor = "multi_thread")]
async fn without_the_expected_sequence_entries_are_published_twice() {
    let unguarded = |setup: Setup| setup.environment("BOXOFFICE_SABOTAGE", "stream-sequence");
    let (nats, servers, event) = held_up(unguarded).await;
    let told = length(&streams(&nats).await).await;
    servers[1].service().book_for("user-2", &event, 1).await.expect(201);
    let streams = streams(&nats).await;
    eventually("an entry is on the stream twice", async || (length(&streams).await > told + 1).then_some(()))
        .await;
}

/// Two instances on one database, of which the second was held up while the first filled the stream, for
/// longer than the server looks for repetitions.
async fn held_up(how: impl Fn(Setup) -> Setup) -> (NatsServer, Vec<Server>, String) {
    let nats = NatsServer::start().await;
    let database = PostgresServer::shared().await.create_database().await;
    let mut servers = Vec::new();
    for _ in 0..2 {
        servers.push(how(setup(&nats).on_postgres(&database)).start().await);
    }
    let event = servers[0].admin().create_event(&event_body(100)).await;
    for server in &servers {
        eventually("both fill the stream", async || {
            let ready = server.anonymous().get("/readyz?verbose").await.expect(200);
            (ready["nats"]["relay"]["fills"] == true && ready["nats"]["relay"]["behind"] == 0).then_some(())
        })
        .await;
    }
    servers[1].pause();
    for _ in 0..5 {
        servers[0].service().book_for("user-1", &event, 1).await.expect(201);
    }
    eventually("the first has told, and noted it", async || {
        let noted = database.query_number("SELECT coalesce(sum(seq), 0)::bigint FROM published").await;
        (noted == 6).then_some(())
    })
    .await;
    sleep(Duration::from_millis(2_500)).await;
    servers[1].resume();
    (nats, servers, event)
}

/// Instances are killed under load, and NATS, too: at the end every entry was told once and in order.
#[tokio::test(flavor = "multi_thread")]
async fn kills_and_restarts_lose_and_repeat_nothing() {
    let kills = number_from_environment("BELLS").unwrap_or(KILLS);
    println!("{}", kill_and_restart(kills, |setup| setup).await);
}

/// The same where a lock lets one of them at a time fill the stream.
mod on_redis {
    use super::*;

    /// U3: trouble of an instance that only waits for its turn is over when NATS is back, or PostgreSQL.
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
            ready(server).await;
        }
        nats.kill9();
        for server in &servers {
            eventually("its relay is in trouble", async || {
                let ready = server.anonymous().get("/readyz?verbose").await.json();
                (ready["nats"]["relay"]["status"] != "ok").then_some(())
            })
            .await;
        }
        nats.restart().await;
        for server in &servers {
            ready(server).await;
        }
        let fills = async |server: &Server| server.metric("boxoffice_relay_active").await;
        assert_eq!(fills(&servers[0]).await + fills(&servers[1]).await, 1, "one fills, one waits");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn kills_under_locks_lose_and_repeat_nothing() {
        let kills = number_from_environment("BELLS").unwrap_or(KILLS / 2);
        let redis = RedisServer::start().await;
        let locked = |setup: Setup| setup.argument("--redis").argument(redis.url(0));
        println!("with locks: {}", kill_and_restart(kills, locked).await);
    }
}

async fn kill_and_restart(kills: u32, how: impl Fn(Setup) -> Setup) -> String {
    let mut nats = NatsServer::start().await;
    let database = PostgresServer::shared().await.create_database().await;
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(how(setup(&nats).on_postgres(&database)).start().await);
    }
    let mut events = Vec::new();
    for _ in 0..4 {
        events.push(servers[0].admin().create_event(&event_body(100_000)).await);
    }
    let mut restarts = 0;
    for kill in 0..kills {
        let place = kill as usize % servers.len();
        let mut loads: Vec<Load> = servers
            .iter()
            .enumerate()
            .map(|(number, server)| Load::start(server, &events[number..=number], 3))
            .collect();
        loads[place].wait_for_acknowledged(60).await;
        if kill % 10 < 4 && (kills <= 10 || kill % 10 == 0) {
            nats.kill9();
            loads[place].wait_for_acknowledged(90).await;
            nats.restart().await;
            restarts += 1;
        }
        let mut killed = servers.remove(place);
        killed.kill9();
        for (number, load) in loads.into_iter().enumerate() {
            let journal =
                if number == place { load.wait_until_disconnected().await } else { load.stop().await };
            assert!(!journal.is_empty());
        }
        servers.insert(place, killed.restart().await);
    }
    let told = complete(&nats, &mut servers[0].admin()).await;
    servers[0].expect_clean().await;
    format!("{kills} kills and {restarts} restarts of NATS: {told} entries, each told once and in order")
}

/// Events that are sold to many, and some of it given back.
pub(super) async fn sold(server: &Server, events: usize, bookings: usize) -> Vec<String> {
    let mut made = Vec::new();
    for _ in 0..events {
        let event = with_fields(event_body(10_000), &json!({"name": "A sale"}));
        made.push(server.admin().create_event(&event).await);
    }
    for event in &made {
        let buyers = (0..bookings).map(|buyer| async move {
            let mut service = server.service();
            service.book_for(&format!("user-{buyer}"), event, 1).await.expect(201);
        });
        futures_util::stream::iter(buyers).buffer_unordered(16).collect::<Vec<()>>().await;
    }
    made
}

/// Starts a server, which sells, and says what is wrong with NATS wherever one looks.
async fn says(nats: &NatsServer, what: &str) {
    let server = Setup::new(program()).argument("--nats").argument(nats.url()).start().await;
    sold(&server, 1, 3).await;
    let told = eventually("readiness says so", async || {
        let ready = server.anonymous().get("/readyz?verbose").await.expect(200);
        let status = ready["nats"]["status"].as_str().expect("a status").to_owned();
        (ready["status"] == "degraded" && status.contains(what)).then_some(status)
    })
    .await;
    let metrics = server.anonymous().get("/metrics").await.body;
    let metrics = String::from_utf8_lossy(&metrics);
    assert!(metrics.contains("\nboxoffice_relay_error 1\n"), "{told}: {metrics}");
    let url = format!("sqlite://{}", server.database().display());
    let doctor = program().run(["doctor", "--json", "--nats", &nats.url(), "--database", &url]).await;
    if what != "knows more" {
        assert_eq!(doctor.exit, testkit::Exit::Code(1), "{}", doctor.stderr);
        assert!(doctor.stdout.contains(what), "{}", doctor.stdout);
    }
    server.expect_clean().await;
}
