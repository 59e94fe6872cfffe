//! Writes the fixtures of `tests/upgrade`: an earlier version sells on SQLite and on PostgreSQL, with NATS.
//! `VERSION` names the folder.

use std::collections::BTreeMap;
use std::path::Path;

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use testkit::{
    Client, NatsServer, PostgresServer, Server, Setup, event_body, eventually, id_of, with_fields,
};

use crate::fixture::{FOLDER, Fixture, Manifest, NatsRequest, Request};
use crate::ledger_stream::{expect_complete, streams};
use crate::previous;

/// Bookings of ordinary buyers: enough for more than 2,000 ledger entries.
const BUYERS: usize = 800;
/// Holds are live when the earlier version stops, and overdue when the tests start.
const HOLD: &str = "2m";
/// Ledger entries that are not on the stream.
const UNPUBLISHED: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn write_sqlite() {
    let fixture = create("sqlite");
    let setup = Setup::new(previous());
    write(&fixture, setup.clone()).await;
    assert!(!setup.database().with_extension("db-wal").exists(), "the file is complete");
    std::fs::copy(setup.database(), fixture.database()).expect("a copy");
}

#[tokio::test(flavor = "multi_thread")]
async fn write_postgres() {
    let fixture = create("postgres");
    let database = PostgresServer::shared().await.create_database().await;
    write(&fixture, Setup::new(previous()).on_postgres(&database)).await;
    std::fs::write(fixture.database(), database.dump().await).expect("a dump");
}

/// The folder of a fixture that does not exist yet.
fn create(database: &str) -> Fixture {
    let version = std::env::var_os("VERSION").expect("VERSION names the earlier version");
    let folder = Path::new(FOLDER).join(version).join(database);
    assert!(!folder.exists(), "fixtures are never changed: {}", folder.display());
    std::fs::create_dir_all(&folder).expect("a folder");
    Fixture { folder }
}

/// Sells, and records the responses. The server and NATS are stopped at the end.
async fn write(fixture: &Fixture, setup: Setup) {
    let mut nats = NatsServer::start().await;
    let setup = setup.argument("--nats").argument(nats.url()).argument("--sweep-every").argument("1s");
    let mut server = setup.argument("--hold").argument(HOLD).start().await;
    let mut writer = Writer { admin: server.admin(), service: server.service(), events: BTreeMap::new() };
    writer.create_special_events().await;
    let requests = send_stored_requests(&server, &writer.events).await;
    let nats_request = send_stored_nats_request(&nats, &writer.events["plain"]).await;
    writer.create_special_bookings().await;
    let bookings = writer.admin.all("/v1/bookings").await;
    let refunds = writer.admin.all("/v1/refunds").await;
    sell(&server, &writer.events["plain"]).await;

    let published_entries = expect_complete(&nats, &mut writer.admin).await as u64;
    let stream = streams(&nats).await.get_stream("BOXOFFICE").await.expect("the stream");
    let stream_created = stream.cached_info().created.to_string();
    nats.terminate().await;
    for number in 0..UNPUBLISHED {
        let user = format!("buyer-unpublished-{number}");
        writer.service.book_for(&user, &writer.events["plain"], 1).await.expect(201);
    }
    let mut events = BTreeMap::new();
    for (name, id) in &writer.events {
        events.insert(name.clone(), writer.admin.get(&format!("/v1/events/{id}")).await.expect(200));
    }
    let manifest = Manifest {
        ledger_entries: published_entries + UNPUBLISHED as u64,
        published_entries,
        stream_created,
        stats: writer.admin.get("/v1/stats").await.expect(200),
        events,
        bookings,
        refunds,
        requests,
        nats_request,
    };
    server.expect_clean().await;
    server.terminate();
    server.wait_for_exit().await;
    let text = serde_json::to_string_pretty(&manifest).expect("JSON");
    std::fs::write(fixture.manifest_file(), text + "\n").expect("a manifest");
    fixture.tar(&["--create", "--gzip", "--numeric-owner"], nats.store()).await;
}

/// Creates events with special properties, by name, and bookings in every state.
struct Writer {
    admin: Client,
    service: Client,
    events: BTreeMap<String, String>,
}

impl Writer {
    async fn create_event(&mut self, name: &str, changes: &Value) {
        let body = with_fields(with_fields(event_body(10_000), &json!({"name": name})), changes);
        let id = self.admin.create_event(&body).await;
        self.events.insert(name.to_owned(), id);
    }

    async fn create_special_events(&mut self) {
        self.create_event("plain", &json!({})).await;
        self.create_event("free", &json!({"price": {"amount": 0, "currency": "EUR"}})).await;
        self.create_event("yen", &json!({"venue": "東京 🎫", "price": {"amount": 3_300, "currency": "JPY"}}))
            .await;
        self.create_event("shortHold", &json!({"holdSeconds": 1, "capacity": 50})).await;
        self.create_event("lastTicket", &json!({"holdSeconds": 1, "capacity": 1})).await;
        self.create_event("salesStartAfterStart", &json!({"salesStartAt": "2099-07-01T00:00:00Z"})).await;
        self.create_event("paused", &json!({"maxTicketsPerBooking": 4, "timeZone": "Europe/Berlin"})).await;
        self.create_event("cancelled", &json!({"salesEndAt": "2099-05-01T00:00:00Z"})).await;
        let types = json!([
            {"name": "Standing", "price": {"amount": 3_500, "currency": "EUR"}},
            {"name": "VIP", "price": {"amount": 12_000, "currency": "EUR"}, "capacity": 2},
        ]);
        self.create_event(
            "ticketTypes",
            &json!({"price": null, "ticketTypes": types, "maxTicketsPerUser": 6}),
        )
        .await;
        let path = format!("/v1/events/{}", self.events["yen"]);
        self.admin.patch(&path, &json!({"capacity": 500})).await.expect(200);
    }

    async fn create_special_bookings(&mut self) {
        // Confirmed, cancelled with a refund, and cancelled unpaid.
        for name in ["plain", "free", "yen", "paused"] {
            self.book_and_pay(name, &format!("{name}-confirmed"), 2).await;
            let cancelled = self.book_and_pay(name, &format!("{name}-refunded"), 1).await;
            self.service.cancel(&cancelled).await.expect(200);
            let unpaid = self.book(name, &format!("{name}-unpaid"), 1).await;
            self.service.cancel(&unpaid).await.expect(200);
            self.book(name, &format!("{name}-held"), 3).await;
        }
        let types = self.admin.get(&format!("/v1/events/{}", self.events["ticketTypes"])).await.expect(200);
        let item = |index: usize, quantity: u32| {
            let id = &types["ticketTypes"][index]["id"];
            json!({"ticketTypeId": id, "quantity": quantity})
        };
        let order = json!({"eventId": types["id"], "userId": "limited", "items": [item(0, 3), item(1, 1)]});
        let limited = id_of(&self.service.post("/v1/bookings", &order).await.expect(201));
        self.service.confirm(&limited, "pay-limited").await.expect(200);
        self.create_expired_bookings().await;
        let path = |event: &str| format!("/v1/events/{event}");
        self.admin.patch(&path(&self.events["paused"]), &json!({"status": "paused"})).await.expect(200);
        self.cancel_event().await;
        // Refunds in every state.
        let refunds = self.admin.all("/v1/refunds").await;
        for (refund, outcome) in refunds.iter().zip(["succeeded", "failed"]) {
            let body = json!({"outcome": outcome, "providerReference": format!("re-{outcome}")});
            self.service.post(&format!("/v1/refunds/{}/settle", id_of(refund)), &body).await.expect(200);
        }
    }

    async fn book(&mut self, event: &str, user: &str, tickets: u32) -> String {
        id_of(&self.service.book_for(user, &self.events[event], tickets).await.expect(201))
    }

    async fn book_and_pay(&mut self, event: &str, user: &str, tickets: u32) -> String {
        let booking = self.book(event, user, tickets).await;
        self.service.confirm(&booking, &format!("pay-{user}")).await.expect(200);
        booking
    }

    async fn wait_for_status(&mut self, booking: &str, status: &str) {
        eventually("a booking changes its status", async || {
            (self.admin.booking(booking).await["status"] == status).then_some(())
        })
        .await;
    }

    /// Expired bookings: two never paid, one paid late with tickets available, one paid after a sell-out.
    async fn create_expired_bookings(&mut self) {
        for user in ["expired-1", "expired-2", "late"] {
            let booking = self.book("shortHold", user, 1).await;
            self.wait_for_status(&booking, "expired").await;
            if user == "late" {
                self.service.confirm(&booking, "pay-late").await.expect(200);
            }
        }
        let late = self.book("lastTicket", "too-late", 1).await;
        self.wait_for_status(&late, "expired").await;
        self.book_and_pay("lastTicket", "in-time", 1).await;
        self.service.confirm(&late, "pay-too-late").await.expect_problem(409, "hold_expired");
    }

    async fn cancel_event(&mut self) {
        let paid = self.book_and_pay("cancelled", "cancelled-paid", 2).await;
        let unpaid = self.book("cancelled", "cancelled-unpaid", 1).await;
        let path = format!("/v1/events/{}", self.events["cancelled"]);
        self.admin.patch(&path, &json!({"status": "cancelled"})).await.expect(200);
        self.wait_for_status(&paid, "cancelled").await;
        self.wait_for_status(&unpaid, "cancelled").await;
        self.service.confirm(&unpaid, "pay-for-nothing").await.expect_problem(409, "event_cancelled");
    }
}

/// Requests whose responses are stored, one for each route and kind of caller.
async fn send_stored_requests(server: &Server, events: &BTreeMap<String, String>) -> Vec<Request> {
    let plain = &events["plain"];
    let mut requests: Vec<Request> = Vec::new();
    let mut send = async |caller: &str, path: String, body: Value, status: u16| {
        let idempotency_key = format!("key-{}", requests.len());
        let caller = caller.to_owned();
        let mut request = Request { caller, path, idempotency_key, body, status, response: String::new() };
        let response = request.send(server).await;
        let json = response.json();
        assert_eq!(response.status, status, "{response:?}");
        request.response = String::from_utf8(response.body.to_vec()).expect("JSON is UTF-8");
        requests.push(request);
        json
    };
    let bookings = || "/v1/bookings".to_owned();
    let booking = |id: &Value, verb: &str| format!("/v1/bookings/{}/{verb}", id_of(id));
    send("admin", "/v1/events".to_owned(), event_body(10), 201).await;
    let order = json!({"eventId": plain, "ticketQuantity": 2});
    send("ada", bookings(), order.clone(), 201).await;
    let wrong = with_fields(order.clone(), &json!({"expectedTotal": {"amount": 1, "currency": "EUR"}}));
    send("ada", bookings(), wrong, 422).await;
    let paid = send("bob", bookings(), order.clone(), 201).await;
    let payment = json!({"paymentTransactionId": "pay-bob"});
    send("service", booking(&paid, "confirm"), payment, 200).await;
    send("bob", booking(&paid, "cancel"), json!({"reason": "ill"}), 200).await;
    let refund = id_of(&server.service().refunds_of("pay-bob").await[0]);
    let settlement = json!({"outcome": "succeeded", "providerReference": "re-bob"});
    send("service", format!("/v1/refunds/{refund}/settle"), settlement, 200).await;
    send("service", bookings(), with_fields(order, &json!({"userId": "carol"})), 201).await;
    requests
}

async fn send_stored_nats_request(nats: &NatsServer, event: &str) -> NatsRequest {
    let subject = "booking.create".to_owned();
    let message_id = "0192f0c1-7b4e-7d3a-9b1c-2f4e5a6b7c8d";
    let request =
        json!({"eventId": event, "userId": "nats-user", "ticketQuantity": 1, "messageId": message_id});
    let reply = NatsRequest::send(&subject, &request, nats).await;
    assert_eq!(reply["success"], true, "{reply:#}");
    NatsRequest { subject, request, reply }
}

/// Ordinary buyers book, most of them pay, and half of all cancel.
async fn sell(server: &Server, event: &str) {
    let buyers = (0..BUYERS).map(|buyer| async move {
        let mut service = server.service();
        let tickets = 1 + u32::try_from(buyer % 3).expect("a small number");
        let booking = id_of(&service.book_for(&format!("buyer-{buyer}"), event, tickets).await.expect(201));
        if buyer % 7 != 0 {
            service.confirm(&booking, &format!("pay-{buyer}")).await.expect(200);
        }
        if buyer % 2 == 0 {
            service.cancel(&booking).await.expect(200);
        }
    });
    futures_util::stream::iter(buyers).buffer_unordered(16).collect::<Vec<()>>().await;
}
