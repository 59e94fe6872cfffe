//! Lists: order, pages, filters, and invalid queries.

use serde_json::{Value, json};
use testkit::{Client, event_body, id_of};

use crate::server;

fn ids(rows: &[Value]) -> Vec<String> {
    rows.iter().map(id_of).collect()
}

/// Reads a list page by page, and compares its ids with the expected ones, in order.
async fn expect_pages(client: &mut Client, path: &str, limit: usize, expected: &[String]) {
    let joint = if path.contains('?') { '&' } else { '?' };
    let mut next = format!("{path}{joint}limit={limit}");
    let mut seen = Vec::new();
    loop {
        let page = client.get(&next).await.expect(200);
        let rows = page["data"].as_array().map(Vec::as_slice).unwrap_or_default();
        seen.extend(ids(rows));
        let Some(cursor) = page["nextCursor"].as_str() else {
            assert!(page["nextCursor"].is_null(), "{page}");
            break;
        };
        assert_eq!(rows.len(), limit, "only the last page of {path} is short");
        next = format!("{path}{joint}limit={limit}&after={cursor}");
    }
    assert_eq!(seen, expected, "{path} by {limit}");
}

#[tokio::test]
async fn events_are_listed_newest_first() {
    let server = server().await;
    let mut admin = server.admin();
    let empty = admin.get("/v1/events").await.expect(200);
    assert_eq!(empty, json!({"data": [], "nextCursor": null}));
    let mut events = Vec::new();
    for _ in 0..25 {
        events.push(admin.create_event(&event_body(1)).await);
    }
    // Ids made within one millisecond are in no particular order; the list is in the order of the ids.
    events.sort_unstable_by(|a, b| b.cmp(a));
    for limit in [1, 7, 25, 100] {
        expect_pages(&mut server.anonymous(), "/v1/events", limit, &events).await;
    }
    let page = admin.get("/v1/events").await.expect(200);
    assert_eq!(page["data"].as_array().unwrap().len(), 20, "the default");
    let alone = admin.get(&format!("/v1/events/{}", events[0])).await.expect(200);
    assert_eq!(page["data"][0], alone, "an event in a list is the same as the event alone");
}

#[tokio::test]
async fn bookings_are_listed_by_owner_event_and_status() {
    let server = server().await;
    let mut admin = server.admin();
    let events = [admin.create_event(&event_body(100)).await, admin.create_event(&event_body(100)).await];
    let mut bookings: Vec<[String; 4]> = Vec::new();
    for number in 0..24 {
        let (event, user) = (&events[number % 2], ["ada", "bob", "eve"][number % 3]);
        let booking = id_of(&admin.book_for(user, event, 1).await.expect(201));
        let status = ["pending", "confirmed", "cancelled"][number / 8];
        match status {
            "confirmed" => drop(admin.confirm(&booking, "pay-1").await.expect(200)),
            "cancelled" => drop(admin.cancel(&booking).await.expect(200)),
            _ => {}
        }
        bookings.push([booking, event.clone(), user.to_owned(), status.to_owned()]);
    }
    let select = |event: Option<&str>, user: Option<&str>, status: Option<&str>| -> Vec<String> {
        let fits = |wanted: Option<&str>, found: &str| wanted.is_none_or(|wanted| wanted == found);
        let all = |[_, of, by, is]: &&[String; 4]| fits(event, of) && fits(user, by) && fits(status, is);
        let mut ids: Vec<String> = bookings.iter().rev().filter(all).map(|[id, ..]| id.clone()).collect();
        // The list of an event is in ledger order, the others are in id order. The two differ only for
        // bookings of the same millisecond.
        if event.is_none() || user.is_some() {
            ids.sort_unstable_by(|a, b| b.cmp(a));
        }
        ids
    };
    for event in [None, Some(events[0].as_str()), Some(events[1].as_str())] {
        for user in [None, Some("ada"), Some("nobody")] {
            for status in [None, Some("pending"), Some("confirmed"), Some("cancelled"), Some("expired")] {
                let filters = [("eventId", event), ("userId", user), ("status", status)];
                let query = filters.iter().filter_map(|(name, value)| Some(format!("{name}={}", (*value)?)));
                let path = format!("/v1/bookings?{}", query.collect::<Vec<_>>().join("&"));
                let path = path.trim_end_matches('?');
                let expected = select(event, user, status);
                for limit in [3, 100] {
                    expect_pages(&mut admin, path, limit, &expected).await;
                }
                if user == Some("ada") {
                    expect_pages(&mut server.user("ada"), path, 3, &expected).await;
                    let own = path.replace("userId=ada", "limit=100");
                    let page = server.user("ada").get(&own).await.expect(200);
                    assert_eq!(ids(page["data"].as_array().unwrap()), expected, "{own}");
                }
            }
        }
    }
    server.user("ada").get("/v1/bookings?userId=bob").await.expect_problem(403, "forbidden");
}

#[tokio::test]
async fn refunds_are_listed_by_status() {
    let server = server().await;
    let mut admin = server.admin();
    let event = admin.create_event(&event_body(100)).await;
    for number in 0..5 {
        let booking = id_of(&admin.book_for("ada", &event, 1).await.expect(201));
        admin.confirm(&booking, &format!("pay-{number}")).await.expect(200);
        admin.cancel(&booking).await.expect(200);
    }
    let all = admin.all("/v1/refunds").await;
    let mut newest_first = ids(&all);
    newest_first.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!((all.len(), ids(&all)), (5, newest_first.clone()));
    expect_pages(&mut server.service(), "/v1/refunds", 2, &newest_first).await;
    expect_pages(&mut admin, "/v1/refunds?status=requested", 2, &newest_first).await;
    for none in ["succeeded", "failed"] {
        expect_pages(&mut admin, &format!("/v1/refunds?status={none}"), 2, &[]).await;
    }
}

#[tokio::test]
async fn the_ledger_lists_all_entries_oldest_first() {
    let server = server().await;
    let mut admin = server.admin();
    let event = admin.create_event(&event_body(10)).await;
    let booking = id_of(&server.user("ada").book(&event, 2).await.expect(201));
    admin.confirm(&booking, "pay-1").await.expect(200);
    admin
        .patch(&format!("/v1/events/{event}"), &json!({"capacity": 12, "status": "paused"}))
        .await
        .expect(200);
    server.service().cancel(&booking).await.expect(200);
    let path = format!("/v1/events/{event}/ledger");
    let entries = admin.all(&path).await;
    let summary = |entry: &Value| {
        let text = |name: &str| entry[name].as_str().unwrap_or("-").to_owned();
        format!(
            "{} {} {} -> {} ({}), {} left, after {}, by {}",
            entry["eventSeq"],
            text("type"),
            text("from"),
            text("to"),
            entry["quantity"],
            entry["availableAfter"],
            entry["previousSeq"],
            text("actor"),
        )
    };
    assert_eq!(
        entries.iter().map(summary).collect::<Vec<_>>(),
        [
            "1 event.created - -> onSale (10), 10 left, after null, by admin:boss",
            "2 booking.created - -> pending (2), 8 left, after null, by user:ada",
            "3 booking.confirmed pending -> confirmed (2), 8 left, after 2, by admin:boss",
            "4 event.updated onSale -> paused (2), 10 left, after null, by admin:boss",
            "5 booking.cancelled confirmed -> cancelled (2), 12 left, after 3, by service:gateway",
            "6 refund.requested - -> requested (0), 12 left, after 5, by service:gateway",
        ]
    );
    let created = &entries[1];
    assert_eq!(created["bookingId"], booking);
    assert_eq!(created["items"].as_array().unwrap().len(), 1);
    assert_eq!(created["items"][0]["quantity"], 2);
    assert!(entries[5]["refundId"].is_string() && entries.iter().all(|entry| entry["at"].is_string()));
    let page = admin.get(&format!("{path}?limit=2&after=1")).await.expect(200);
    assert_eq!((&page["data"][0]["eventSeq"], &page["nextCursor"]), (&json!(2), &json!("3")));
    let end = admin.get(&format!("{path}?after=6")).await.expect(200);
    assert_eq!(end, json!({"data": [], "nextCursor": null}));
    assert_eq!(admin.get(&format!("{path}?after=99999999999")).await.expect(200)["data"], json!([]));
}

#[tokio::test]
async fn invalid_query_parameters_are_named() {
    let server = server().await;
    let mut admin = server.admin();
    let event = admin.create_event(&event_body(10)).await;
    let ledger = format!("/v1/events/{event}/ledger");
    for list in ["/v1/events", "/v1/bookings", "/v1/refunds", &ledger] {
        for wrong in
            ["limit=0", "limit=101", "limit=-1", "limit=ten", "limit=1.5", "limit=", "limit=99999999999"]
        {
            let response = admin.get(&format!("{list}?{wrong}")).await;
            assert_eq!(response.expect_invalid(), ["?limit"], "{list} {wrong}");
        }
        for wrong in ["after=nonsense", "after=", "after=-1", "after=%00", "after=%ff"] {
            let response = admin.get(&format!("{list}?{wrong}")).await;
            assert_eq!(response.expect_invalid(), ["?after"], "{list} {wrong}");
        }
        for (wrong, pointer) in [("page=2", "?page"), ("Limit=2", "?Limit"), ("limit=2&limit=3", "?limit")] {
            let response = admin.get(&format!("{list}?{wrong}")).await;
            assert_eq!(response.expect_invalid(), [pointer], "{list} {wrong}");
        }
        admin.get(&format!("{list}?limit=100")).await.expect(200);
    }
    let wrong = [
        ("/v1/bookings?status=sold", "?status"),
        ("/v1/bookings?status=", "?status"),
        ("/v1/bookings?status=Pending", "?status"),
        ("/v1/bookings?eventId=nonsense", "?eventId"),
        ("/v1/bookings?userId=a%20b", "?userId"),
        ("/v1/refunds?status=pending", "?status"),
    ];
    for (path, pointer) in wrong {
        assert_eq!(admin.get(path).await.expect_invalid(), [pointer], "{path}");
    }
}
