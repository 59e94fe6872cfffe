//! The cost of statements on PostgreSQL, with statistics, because plans depend on the contents of the tables.

use std::fmt::Write as _;

use serde_json::Value;
use store::conformance::fixture::Fixture;
use tokio_postgres::{Client, SimpleQueryMessage};
use uuid::Uuid;

use super::{PostgresHarness, literal};
use crate::large_event::{Dialect, copies};
use crate::statement_cost::{Arg, BOOKINGS, Case, assert_complete, cases, template, text};

const POSTGRES: Dialect = Dialect {
    series: |_| String::new(),
    table: "(SELECT generate_series(1, 50000) AS i) n",
    few: "(SELECT generate_series(1, 5000) AS i) n",
    id: |number| format!("lpad(to_hex({number}), 32, '0')::uuid"),
    literal,
    no: "false",
};

/// Tables that grow with sales: no statement may scan them, whatever the statistics say.
const LARGE: [&str; 4] = ["bookings", "ledger", "refunds", "idempotency"];

/// Number of rows that a node of a plan and its children have read, including those that a filter has
/// removed.
fn rows_read(plan: &Value) -> f64 {
    let number = |name: &str| plan[name].as_f64().unwrap_or(0.0);
    let kind = plan["Node Type"].as_str().unwrap_or_default();
    let relation = plan["Relation Name"].as_str().unwrap_or_default();
    assert!(!(kind == "Seq Scan" && LARGE.contains(&relation)), "{plan:#}");
    let dropped = number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
    let own = if kind.contains("Scan") && kind != "Subquery Scan" && kind != "Function Scan" {
        (number("Actual Rows") + dropped) * number("Actual Loops")
    } else {
        0.0
    };
    let below = plan["Plans"].as_array().into_iter().flatten().map(rows_read);
    own + below.sum::<f64>()
}

fn literals(args: &[Arg]) -> String {
    let mut list = String::new();
    for arg in args {
        let separator = if list.is_empty() { "" } else { ", " };
        match arg {
            Arg::Id(id) => write!(list, "{separator}'{}'", Uuid::from_bytes(*id)),
            Arg::Text(text) => write!(list, "{separator}'{text}'"),
            Arg::Number(number) => write!(list, "{separator}'{number}'"),
            Arg::Null => write!(list, "{separator}NULL"),
        }
        .unwrap();
    }
    list
}

async fn explained(client: &Client, name: &str, args: &str) -> Value {
    let sql = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE {name} ({args})");
    let messages = client.simple_query(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let text: String = messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        })
        .collect();
    serde_json::from_str::<Value>(&text).expect("a plan")[0].take()
}

/// The shared cases, and those of statements that differ or exist only on PostgreSQL.
fn postgres_cases(template: &domain::Booking) -> (Vec<Case>, Vec<(&'static str, String, i64)>) {
    let by_list = [
        "booking_external_refs",
        "booking_load",
        "event_load",
        "idempotency_load",
        "refund_load",
        "user_limit_load",
    ];
    let (event, booking) =
        (Uuid::from_bytes(*template.event_id.bytes()), Uuid::from_bytes(*template.id.bytes()));
    let mut cases = cases(template);
    cases.retain(|case| !by_list.contains(&case.name));
    let unknown = Uuid::nil();
    let more = vec![
        ("booking_external_refs", format!("'{{{event}}}', '{{no such reference}}'"), 2),
        ("booking_load", format!("'{{{booking},{unknown}}}'"), 2),
        ("booking_overdue_of_user", format!("'{event}', '1000000000000', 'heavy', '1000'"), 2 * 1_000),
        ("event_load", format!("'{{{event},{unknown}}}'"), 4),
        ("event_lock", format!("'{{{event},{unknown}}}'"), 10),
        ("idempotency_load", "'{s,s}', '{k7,k8}', '86400'".to_owned(), 4),
        ("idempotency_exists", r"'s', 'k7', '\x00', '7'".to_owned(), 2),
        ("ledger_exists", format!("'{event}', '7', 'booking.created', NULL, 'r', '1'"), 2),
        ("refund_load", format!("'{{{booking}}}', '{{t}}'"), 2),
        ("user_limit_load", format!("'{{{event}}}', '{{heavy}}', '{{{booking}}}'"), 4),
    ];
    (cases, more)
}

#[tokio::test(flavor = "multi_thread")]
async fn r3_statements_read_only_their_page() {
    let harness = PostgresHarness::new(1).await;
    let fixture = Fixture::new(&harness);
    let template = template(&fixture).await;
    let client = harness.database.connect().await;
    for sql in copies(&POSTGRES, &template, BOOKINGS) {
        assert!(client.execute(&sql, &[]).await.unwrap_or_else(|e| panic!("{sql}: {e:?}")) >= 5_000);
    }
    client.batch_execute("VACUUM ANALYZE").await.expect("statistics");
    // The settings of the store's sessions.
    let keyed = "SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off";
    client.batch_execute(keyed).await.expect("a setting");
    let (cases, more) = postgres_cases(&template);
    let own: Vec<&str> = more.iter().map(|(name, ..)| *name).collect();
    assert_complete("postgres", &cases, &own);
    let shared = cases.iter().map(|case| (case.name, literals(&case.args), case.rows_max));
    let all: Vec<(&str, String, i64)> = shared.chain(more).collect();
    for name in all.iter().map(|(name, ..)| *name).collect::<std::collections::BTreeSet<_>>() {
        client
            .batch_execute(&format!("PREPARE {name} AS {}", text("postgres", name)))
            .await
            .expect("a statement");
    }
    // A session first plans for the given parameters, and later uses one generic plan.
    for mode in ["force_custom_plan", "force_generic_plan"] {
        client.batch_execute(&format!("SET plan_cache_mode = {mode}")).await.expect("a setting");
        for (name, args, rows_max) in &all {
            let explained = explained(&client, name, args).await;
            let rows = rows_read(&explained["Plan"]);
            let bound = f64::from(u32::try_from(*rows_max).expect("a small bound")) + 8.0;
            assert!(rows <= bound, "{name} {args}, {mode}: {rows} rows read\n{:#}", explained["Plan"]);
        }
    }
    assert_eq!(fixture.store.cancelled_events(None, 100).await.expect("a page").len(), 1);
}
