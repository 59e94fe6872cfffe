//! Requests of the gateway of the MongoDB booking service, and the replies that it expects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_nats::HeaderMap;
use futures_util::future::join_all;
use serde_json::{Value, json};
use testkit::{NatsServer, Setup, event_body, eventually, id_of, with_fields};

use super::gateway::{Gateway, now};
use crate::{instances, program, setup};

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_booking_lifecycle_works_over_nats() {
    let nats = NatsServer::start().await;
    let server = setup(&nats).start().await;
    let event = server.admin().create_event(&event_body(10)).await;
    let gateway = Gateway::connect(&nats).await;

    let order = json!({
        "eventId": event, "userId": "user-1", "ticketQuantity": 2, "totalAmount": 90.0,
        "paymentMethod": "card", "externalRef": "order 1", "metadata": {"invoice": "2026-11"},
    });
    let created = gateway.call("booking.create", order).await;
    assert_eq!(
        (&created["success"], &created["message"]),
        (&json!(true), &json!("Booking created successfully"))
    );
    let booking = &created["data"];
    let id = id_of(booking);
    assert_eq!((&booking["_id"], &booking["bookingDate"]), (&booking["id"], &booking["createdAt"]));
    assert_eq!((&booking["status"], &booking["totalAmount"]), (&json!("pending"), &json!(90.0)));
    assert_eq!(booking["total"], json!({"amount": 9_000, "currency": "EUR"}));
    assert_eq!((&booking["userId"], &booking["paymentMethod"]), (&json!("user-1"), &json!("card")));
    assert_eq!(booking["metadata"], json!({"invoice": "2026-11"}));
    assert_eq!(booking["externalRef"], "order 1");
    let repeated =
        json!({"eventId": event, "userId": "user-2", "ticketQuantity": 1, "externalRef": "order 1"});
    gateway.expect_refused("booking.create", repeated, "external_ref_in_use").await;

    let mine = json!({"bookingId": id, "userId": "user-1"});
    assert_eq!(gateway.expect("booking.get", mine.clone()).await["_id"], json!(id));
    let theirs = json!({"bookingId": id, "userId": "user-2"});
    gateway.expect_refused("booking.get", theirs.clone(), "not_found").await;
    gateway.expect_refused("booking.cancel", theirs, "not_found").await;

    let valid = json!({"bookingId": id, "eventId": event});
    let reply = gateway.call("booking.validate", valid.clone()).await;
    assert_eq!((&reply["success"], &reply["valid"]), (&json!(true), &json!(false)), "{reply:#}");
    let payment = json!({"bookingId": id, "paymentTransactionId": "pay-1"});
    let paid = gateway.expect("booking.confirm-payment", payment).await;
    assert_eq!((&paid["status"], &paid["paymentStatus"]), (&json!("confirmed"), &json!("paid")));
    let reply = gateway.call("booking.validate", valid).await;
    for place in [&reply, &reply["data"]] {
        assert_eq!((&place["valid"], &place["booking"]["_id"]), (&json!(true), &json!(id)), "{reply:#}");
    }
    let stats = gateway.expect("booking.stats", json!({})).await;
    assert_eq!((&stats["totalBookings"], &stats["confirmedBookings"]), (&json!(1), &json!(1)));

    let cancel = with_fields(mine, &json!({"reason": "rain"}));
    let cancelled = gateway.expect("booking.cancel", cancel.clone()).await;
    assert_eq!(
        (&cancelled["status"], &cancelled["cancellationReason"]),
        (&json!("cancelled"), &json!("rain"))
    );
    let again = gateway.expect_refused("booking.cancel", cancel, "invalid_state").await;
    assert_eq!(again["bookingStatus"], "cancelled");
    server.expect_clean().await;
}

/// Each request is handled by exactly one of the instances, although all of them subscribe.
#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_handled_once_by_several_instances() {
    const BUYERS: usize = 120;
    const TICKETS: u32 = 50;
    let nats = NatsServer::start().await;
    let (database, servers) = instances(3, &nats).await;
    let event = servers[0].admin().create_event(&event_body(TICKETS)).await;
    let gateway = Gateway::connect(&nats).await;
    wait_for_services(&gateway, servers.len()).await;

    let order = |buyer: usize| {
        // All message ids are the same time in milliseconds, as those of the gateway may be.
        json!({"eventId": event, "userId": format!("user-{buyer}"), "ticketQuantity": 1, "totalAmount": 45,
               "messageId": "1732467600000"})
    };
    let replies = join_all((0..BUYERS).map(|buyer| gateway.call("booking.create", order(buyer)))).await;
    let (created, refused): (Vec<_>, Vec<_>) =
        replies.into_iter().partition(|reply| reply["success"] == true);
    assert_eq!(created.len(), TICKETS as usize);
    assert!(refused.iter().all(|reply| reply["code"] == "sold_out"), "{:#}", refused[0]);
    let rows = database.query_number("SELECT count(*) FROM bookings").await;
    assert_eq!(rows, i64::from(TICKETS), "no request creates two bookings");
    let ids: BTreeSet<String> = created.iter().map(|reply| id_of(&reply["data"])).collect();
    assert_eq!(ids.len(), TICKETS as usize);

    let stats = query_services(&gateway, "$SRV.STATS.boxoffice", servers.len()).await;
    let busy = stats.iter().filter(|stats| statistic(stats, "booking.create", "num_requests") > 0).count();
    let handled: u64 = stats.iter().map(|stats| statistic(stats, "booking.create", "num_requests")).sum();
    let errors: u64 = stats.iter().map(|stats| statistic(stats, "booking.create", "num_errors")).sum();
    assert_eq!((handled, errors), (BUYERS as u64, refused.len() as u64), "{stats:#?}");
    assert_eq!(busy, servers.len(), "every instance handles requests: {stats:#?}");
    servers[0].expect_clean().await;
}

/// The server of NATS accepts messages of at most 1 MB.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_too_long_for_nats_is_refused() {
    let nats = NatsServer::start().await;
    let server = setup(&nats).start().await;
    let event = server.admin().create_event(&event_body(100)).await;
    let gateway = Gateway::connect(&nats).await;
    let metadata: serde_json::Map<_, _> =
        (0..20).map(|key| (key.to_string(), json!("x".repeat(500)))).collect();
    for buyer in 0..60 {
        let order = json!({"eventId": event, "userId": format!("user-{buyer}"), "ticketQuantity": 1,
                           "metadata": metadata});
        assert_eq!(gateway.call("booking.create", order).await["success"], true);
    }
    let list = |limit: u32| json!({"eventId": event, "limit": limit});
    let refused = gateway.expect_refused("booking.list", list(100), "validation_failed").await;
    assert!(refused["error"].as_str().is_some_and(|error| error.contains("max_payload")), "{refused:#}");
    let listed = gateway.call("booking.list", list(20)).await;
    assert_eq!(listed["bookings"].as_array().map(Vec::len), Some(20), "{listed:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn service_discovery_describes_the_service() {
    let nats = NatsServer::start().await;
    let _server = setup(&nats).start().await;
    let gateway = Gateway::connect(&nats).await;
    let pong = query_services(&gateway, "$SRV.PING", 1).await.remove(0);
    assert_eq!(pong["type"], "io.nats.micro.v1.ping_response");
    let info = query_services(&gateway, "$SRV.INFO.boxoffice", 1).await.remove(0);
    assert_eq!((&info["id"], &info["name"]), (&pong["id"], &json!("boxoffice")));
    let endpoints = info["endpoints"].as_array().expect("a list");
    let subjects: Vec<&str> = endpoints.iter().filter_map(|endpoint| endpoint["subject"].as_str()).collect();
    let verbs = ["create", "cancel", "get", "list", "validate", "confirm-payment", "stats"];
    assert_eq!(subjects, verbs.map(|verb| format!("booking.{verb}")));
    assert!(endpoints.iter().all(|endpoint| endpoint["queue_group"] == "boxoffice"), "{info:#}");
}

/// The senders of these requests have timed out: the requests are not executed, and get no reply.
#[tokio::test(flavor = "multi_thread")]
async fn expired_requests_are_never_executed() {
    let nats = NatsServer::start().await;
    let server = setup(&nats).start().await;
    let event = server.admin().create_event(&event_body(100)).await;
    let gateway = Arc::new(Gateway::connect(&nats).await);
    let order = json!({"eventId": event, "userId": "user-1", "ticketQuantity": 1});
    let (_, millis) = now();
    let date = |ago: i64| jiff::Timestamp::from_millisecond(now().1 - ago).expect("a date").to_string();
    let header = |deadline: String| {
        let mut headers = HeaderMap::new();
        headers.insert("Deadline", deadline);
        headers
    };
    let none = HeaderMap::new;
    let late = [
        (json!({"timestamp": date(16_000)}), none()),
        (json!({"timestamp": millis - 16_000}), none()),
        (json!({"timestamp": (millis - 16_000).to_string()}), none()),
        (json!({"timestamp": date(3_600_000)}), none()),
        (json!({}), header(date(100))),
        (json!({}), header((millis - 100).to_string())),
        (json!({"timestamp": date(0)}), header(date(1))),
        (json!({"timestamp": date(16_000)}), header(date(-60_000))),
    ];
    let sent = late.map(|(changes, headers)| {
        let (gateway, request) = (gateway.clone(), with_fields(order.clone(), &changes));
        async move {
            gateway.send_expecting_no_reply("booking.create", request.to_string().into(), headers).await;
        }
    });
    join_all(sent).await;
    assert_eq!(server.admin().counts(&event).await, (0, 0, 100));

    for (changes, headers) in [
        (json!({"timestamp": date(5_000)}), none()),
        (json!({"timestamp": now().1}), none()),
        (json!({"timestamp": null}), none()),
        (json!({"timestamp": "yesterday"}), none()),
        (json!({"timestamp": [1]}), none()),
        (json!({"timestamp": date(-60_000)}), header("soon".to_owned())),
    ] {
        let request = with_fields(order.clone(), &changes);
        let reply = gateway.send("booking.create", request.to_string().into(), headers).await;
        assert_eq!(reply.expect("a reply")["success"], true, "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn amounts_are_parsed_and_compared_exactly() {
    let nats = NatsServer::start().await;
    let server = setup(&nats).start().await;
    let gateway = Gateway::connect(&nats).await;
    for (price, currency, right, wrong) in [
        (4_510_i64, "EUR", "90.20", "90.21"),
        (4_510, "JPY", "9020", "90.20"),
        (4_510, "BHD", "9.020", "9.021"),
        (999_999_999_999, "EUR", "19999999999.98", "19999999999.99"),
        (0, "EUR", "0", "0.01"),
    ] {
        let event = with_fields(event_body(10), &json!({"price": {"amount": price, "currency": currency}}));
        let event = server.admin().create_event(&event).await;
        let order = |amount: &str| {
            format!(r#"{{"eventId":"{event}","userId":"user-1","ticketQuantity":2,"totalAmount":{amount}}}"#)
        };
        let reply = raw(&gateway, order(right)).await;
        let total = format!(r#""totalAmount":{}"#, if price == 0 { "0.00" } else { right });
        assert!(reply.contains(&total) && reply.contains(r#""success":true"#), "{right} {currency}: {reply}");
        let reply = raw(&gateway, order(&format!("\"{right}\""))).await;
        assert!(reply.contains(r#""success":true"#), "{reply}");
        let reply: Value = serde_json::from_str(&raw(&gateway, order(wrong)).await).expect("JSON");
        let code =
            if (currency, wrong) == ("JPY", "90.20") { "validation_failed" } else { "amount_mismatch" };
        assert_eq!(reply["code"], code, "{wrong} {currency}: {reply:#}");
        if code == "amount_mismatch" {
            assert_eq!(reply["expected"], json!({"amount": 2 * price, "currency": currency}));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_uuid_message_ids_are_idempotency_keys() {
    let nats = NatsServer::start().await;
    let server = setup(&nats).start().await;
    let event = server.admin().create_event(&event_body(100)).await;
    let gateway = Gateway::connect(&nats).await;
    let order =
        |id: &str| json!({"eventId": event, "userId": "user-1", "ticketQuantity": 1, "messageId": id});
    let uuid = "0192f0c1-7b4e-7d3a-9b1c-2f4e5a6b7c8d";
    let first = gateway.expect("booking.create", order(uuid)).await;
    let again = gateway.expect("booking.create", order(uuid)).await;
    assert_eq!(first, again);
    let other = with_fields(order(uuid), &json!({"ticketQuantity": 2}));
    gateway.expect_refused("booking.create", other, "idempotency_key_reused").await;
    let millis = "1732467600000";
    let first = gateway.expect("booking.create", order(millis)).await;
    let second = gateway.expect("booking.create", order(millis)).await;
    assert_ne!(first["id"], second["id"]);

    let cancel = json!({"bookingId": first["id"], "userId": "user-1", "messageId": uuid});
    let cancelled = gateway.expect("booking.cancel", cancel.clone()).await;
    assert_eq!(gateway.expect("booking.cancel", cancel).await, cancelled);
    let pay = json!({"bookingId": second["id"], "paymentTransactionId": "pay-1", "messageId": uuid});
    let paid = gateway.expect("booking.confirm-payment", pay.clone()).await;
    assert_eq!(gateway.expect("booking.confirm-payment", pay).await, paid);
    assert_eq!(server.admin().counts(&event).await, (1, 1, 98));
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_limits_apply_to_the_named_user() {
    let nats = NatsServer::start().await;
    let limits = [("BOXOFFICE_BOOK_LIMIT", "5/1h"), ("BOXOFFICE_CANCEL_LIMIT", "3/1h")];
    let setup = limits.into_iter().fold(setup(&nats), |setup, (name, value)| setup.environment(name, value));
    let server = setup.start().await;
    let event = server.admin().create_event(&event_body(100)).await;
    let gateway = Gateway::connect(&nats).await;
    let order = |user: &str| json!({"eventId": event, "userId": user, "ticketQuantity": 1});
    let mut bookings = Vec::new();
    for _ in 0..5 {
        bookings.push(id_of(&gateway.expect("booking.create", order("user-1")).await));
    }
    let refused = gateway.expect_refused("booking.create", order("user-1"), "rate_limited").await;
    assert_eq!((&refused["rule"], &refused["limit"]), (&json!("book"), &json!(5)), "{refused:#}");
    assert!(refused["retryAfterMs"].as_u64().is_some_and(|left| left > 3_000_000), "{refused:#}");
    gateway.expect("booking.create", order("user-2")).await;

    let cancel = |user: &str, booking: &str| json!({"userId": user, "bookingId": booking});
    gateway.expect("booking.cancel", cancel("user-1", &bookings[0])).await;
    gateway.expect_refused("booking.cancel", cancel("user-1", &bookings[0]), "invalid_state").await;
    gateway.expect_refused("booking.cancel", cancel("user-1", "507f1f77bcf86cd799439011"), "not_found").await;
    gateway.expect_refused("booking.cancel", cancel("user-1", &bookings[1]), "rate_limited").await;
    gateway.expect_refused("booking.cancel", cancel("user-2", &bookings[1]), "not_found").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_has_numbered_pages() {
    let nats = NatsServer::start().await;
    let server = setup(&nats).start().await;
    let gateway = Gateway::connect(&nats).await;
    let mut admin = server.admin();
    let (event, other) =
        (admin.create_event(&event_body(100)).await, admin.create_event(&event_body(100)).await);
    let mut created = BTreeMap::new();
    for number in 0..25 {
        let event = if number % 5 == 0 { &other } else { &event };
        let order = json!({"eventId": event, "userId": "user-1", "ticketQuantity": 1});
        created.insert(id_of(&gateway.expect("booking.create", order).await), number);
    }
    let newest: Vec<String> = created.keys().rev().cloned().collect();
    let cancel = json!({"bookingId": newest[0], "userId": "user-1"});
    gateway.expect("booking.cancel", cancel).await;

    let list = async |request: Value| {
        let reply = gateway.call("booking.list", request).await;
        assert_eq!(reply["success"], true, "{reply:#}");
        assert_eq!(reply["bookings"], reply["data"]["bookings"]);
        let rows = reply["bookings"].as_array().expect("a list");
        let ids: Vec<String> =
            rows.iter().map(|row| row["_id"].as_str().expect("an id").to_owned()).collect();
        (ids, reply["pagination"].clone())
    };
    let pagination = |page: u32, limit: u32, total: u32, pages: u32| {
        json!({
            "page": page, "limit": limit, "total": total, "pages": pages,
        })
    };
    let user = json!({"userId": "user-1"});
    assert_eq!(list(user.clone()).await, (newest[..10].to_vec(), pagination(1, 10, 25, 3)));
    let third = with_fields(user.clone(), &json!({"page": 3}));
    assert_eq!(list(third).await, (newest[20..].to_vec(), pagination(3, 10, 25, 3)));
    let beyond = with_fields(user.clone(), &json!({"page": 4}));
    assert_eq!(list(beyond).await, (Vec::new(), pagination(4, 10, 25, 3)));
    let all = with_fields(user.clone(), &json!({"limit": 100}));
    assert_eq!(list(all).await, (newest.clone(), pagination(1, 100, 25, 1)));
    let pending = with_fields(user.clone(), &json!({"status": "pending", "limit": 7, "page": 2}));
    assert_eq!(list(pending).await, (newest[8..15].to_vec(), pagination(2, 7, 24, 4)));
    let at_other = with_fields(user, &json!({"eventId": other}));
    assert_eq!(list(at_other).await.1, pagination(1, 10, 5, 1));
    let of_event = list(json!({"eventId": event, "limit": 15, "page": 2})).await;
    assert_eq!((of_event.0.len(), of_event.1), (5, pagination(2, 15, 20, 2)));
    let cancelled = list(json!({"eventId": event, "status": "cancelled"})).await;
    assert_eq!(cancelled, (vec![newest[0].clone()], pagination(1, 10, 1, 1)));
    assert_eq!(list(json!({"userId": "unknown"})).await, (Vec::new(), pagination(1, 10, 0, 0)));
    for wrong in
        [json!({}), json!({"userId": "user-1", "limit": 101}), json!({"userId": "user-1", "page": 0})]
    {
        let reply = gateway.expect_refused("booking.list", wrong, "validation_failed").await;
        assert_eq!(reply["bookings"], json!([]));
    }
}

/// Sales do not wait for NATS, and requests are handled once it is available.
#[tokio::test(flavor = "multi_thread")]
async fn sales_continue_while_nats_is_down_and_requests_resume_afterwards() {
    let mut nats = NatsServer::start().await;
    let url = nats.url();
    nats.kill9();
    let server = Setup::new(program()).argument("--nats").argument(url).start().await;
    let event = server.admin().create_event(&event_body(10)).await;
    let ready = server.anonymous().get("/readyz?verbose").await.expect(200);
    let status = ready["nats"]["status"].as_str().expect("a status");
    assert!(ready["status"] == "degraded" && status.starts_with("no connection to NATS"), "{ready:#}");
    server.user("user-1").book(&event, 1).await.expect(201);
    nats.restart().await;
    let gateway = Gateway::connect(&nats).await;
    let order = json!({"eventId": event, "userId": "user-2", "ticketQuantity": 1});
    gateway.expect("booking.create", order.clone()).await;
    nats.kill9();
    server.user("user-3").book(&event, 1).await.expect(201);
    nats.restart().await;
    let gateway = Gateway::connect(&nats).await;
    gateway.expect("booking.create", order).await;
    assert_eq!(server.admin().counts(&event).await.0, 4);
}

/// An instance that is stopped replies to the requests that it has received; the others handle the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_instance_loses_no_request() {
    let nats = NatsServer::start().await;
    let (_database, mut servers) = instances(2, &nats).await;
    let event = servers[0].admin().create_event(&event_body(5_000)).await;
    let gateway = Gateway::connect(&nats).await;
    wait_for_services(&gateway, servers.len()).await;
    let order =
        |buyer: usize| json!({"eventId": event, "userId": format!("user-{buyer}"), "ticketQuantity": 1});
    let (mut first, rest) = (servers.remove(0), servers);
    let requesting = async {
        for round in 0..20 {
            join_all((0..20).map(|buyer| gateway.expect("booking.create", order(20 * round + buyer)))).await;
        }
    };
    let stopping = async {
        eventually("sales have begun", async || (rest[0].admin().counts(&event).await.0 > 60).then_some(()))
            .await;
        first.terminate();
        assert_eq!(first.wait_for_exit().await, testkit::Exit::Code(0));
    };
    tokio::join!(requesting, stopping);
    assert_eq!(rest[0].admin().counts(&event).await.0, 400);
}

async fn raw(gateway: &Gateway, request: String) -> String {
    let reply = gateway.client().request("booking.create", request.into()).await.expect("a reply");
    String::from_utf8(reply.payload.to_vec()).expect("text")
}

/// Sends a service discovery request, and returns this number of replies.
async fn query_services(gateway: &Gateway, subject: &'static str, count: usize) -> Vec<Value> {
    use futures_util::StreamExt as _;
    let client = gateway.client();
    let inbox = client.new_inbox();
    let mut replies = client.subscribe(inbox.clone()).await.expect("a subscription");
    client.publish_with_reply(subject, inbox, "".into()).await.expect("a request");
    let replies =
        replies.by_ref().take(count).map(|reply| serde_json::from_slice(&reply.payload).expect("JSON"));
    testkit::within_deadline("the services reply", replies.collect()).await
}

/// Waits until all instances have subscribed.
async fn wait_for_services(gateway: &Gateway, count: usize) {
    use futures_util::StreamExt as _;
    eventually("all instances have subscribed", async || {
        let client = gateway.client();
        let inbox = client.new_inbox();
        let replies = client.subscribe(inbox.clone()).await.ok()?;
        client.publish_with_reply("$SRV.PING.boxoffice", inbox, "".into()).await.ok()?;
        let pause = tokio::time::sleep(std::time::Duration::from_millis(200));
        let reply_count = replies.take_until(pause).take(count).count().await;
        (reply_count == count).then_some(())
    })
    .await;
}

fn statistic(stats: &Value, subject: &str, statistic: &str) -> u64 {
    let endpoints = stats["endpoints"].as_array().expect("a list");
    let endpoint = endpoints.iter().find(|endpoint| endpoint["subject"] == subject);
    endpoint.and_then(|endpoint| endpoint[statistic].as_u64()).expect("a statistic")
}
