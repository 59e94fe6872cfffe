//! Direct changes of money columns in the database: the audit reports the row for every such column.

use std::collections::BTreeSet;

use async_trait::async_trait;
use domain::{
    BookingId, Event, EventId, EventPatch, NewEvent, RefundId, TicketSelection, TicketTypeId, TicketTypePatch,
};
use store::conformance::Harness;
use store::conformance::fixture::{Fixture, HOLD, edit, eur, expire};

use crate::conformance::FileHarness;

/// Direct access to a database, with values as text.
#[async_trait]
pub(crate) trait RawDatabase: Harness {
    /// All columns of all tables of the schema, as `table.column`.
    async fn columns(&self) -> BTreeSet<String>;

    /// For each row of a table, the id in the column `key`, as 32 hexadecimal digits, and the text of another
    /// column.
    async fn rows(&self, table: &str, key: &str, column: &str) -> Vec<(String, String)>;

    /// Sets a column of the row with this id.
    async fn set(&self, row: (&str, &str, &str), column: &str, value: &str);
}

/// The content of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Amount,
    Currency,
    /// Items, with an amount as the third member of each.
    Items,
}

/// Table, id column, money column, content.
const MONEY: &[(&str, &str, &str, Content)] = &[
    ("events", "id", "revenue", Content::Amount),
    ("event_details", "event_id", "currency", Content::Currency),
    ("ticket_types", "id", "price", Content::Amount),
    ("bookings", "id", "items", Content::Items),
    ("bookings", "id", "currency", Content::Currency),
    ("bookings", "id", "total", Content::Amount),
    ("refunds", "id", "amount", Content::Amount),
    ("refunds", "id", "currency", Content::Currency),
];

/// All other columns. A new column must be added here or above.
const NO_MONEY: &[(&str, &str)] = &[
    ("events", "id capacity held sold seq last_at pending confirmed cancelled expired"),
    ("event_details", "event_id name venue starts_at time_zone sales_start_at sales_end_at hold_seconds"),
    ("event_details", "cancel_cutoff_seconds max_tickets_per_booking max_tickets_per_user status version"),
    ("event_details", "created_at updated_at"),
    ("ticket_types", "event_id place id name capacity held sold"),
    ("bookings", "id event_id user_id status version last_seq hold_expires_at payment_method transaction_id"),
    ("bookings", "confirmed_at cancelled_at cancellation_reason refunded expired_at created_at updated_at"),
    ("bookings", "external_ref metadata"),
    ("user_limits", "event_id user_id tickets max_tickets"),
    ("ledger", "event_id seq type booking_id refund_id lines quantity from_status to_status available_after"),
    ("ledger", "previous_seq actor request_id at trace"),
    (
        "refunds",
        "id booking_id event_id transaction_id status reason provider_reference created_at settled_at",
    ),
    // Responses are the bytes that were sent; their amounts are those of that time.
    ("idempotency", "scope key fingerprint answer created_at"),
    ("published", "event_id stream seq"),
    ("cursors", "consumer event_id destination seq"),
];

/// Creates an event with a booking in every state, refunds, a change of prices, and bookings at the new
/// prices.
async fn create_event(fixture: &Fixture<'_>, currency: &str) -> Event {
    let price = |amount| domain::Money::new(amount, currency.parse().unwrap()).unwrap();
    let mut new = NewEvent { max_tickets_per_user: Some(30), ..fixture.new_event(500) };
    new.ticket_types.push(fixture.ticket_type(Some(400)));
    new.ticket_types[0].price = price(4_500);
    new.ticket_types[1].price = price(3_000);
    let kinds: Vec<_> = new.ticket_types.iter().map(|kind| kind.id).collect();
    let event = fixture.create(new).await.id;
    for round in 1..=2 {
        let book = |name: &str, second| {
            let items = vec![(kinds[0], round), (kinds[1], second)];
            fixture.order(event, &format!("{name}-{round}"), TicketSelection::Items(items))
        };
        let late = fixture.run_ok(book("late", 1)).await;
        fixture.harness.advance(HOLD).await;
        fixture.run_ok(expire(&late)).await;
        for (name, second) in [("held", 2), ("paid", 3), ("cancelled", 4), ("refunded", 5)] {
            let booking = fixture.run_ok(book(name, second)).await;
            if name == "paid" || name == "refunded" {
                fixture.run_ok(fixture.confirm(&booking, "t")).await;
            }
            if name == "paid" {
                fixture.run(fixture.confirm(&booking, "twice")).await;
            }
            if name == "cancelled" || name == "refunded" {
                fixture.run_ok(fixture.cancel(&booking)).await;
            }
        }
        if round == 1 {
            let patch =
                TicketTypePatch { id: kinds[0], name: None, price: Some(price(4_700)), capacity: None };
            fixture.run(edit(event, EventPatch { ticket_types: vec![patch], ..EventPatch::default() })).await;
        }
    }
    fixture.event(event).await
}

/// The values to which a column is changed; `others` are the values of other rows.
fn changed_values(content: Content, value: &str, others: &[&str]) -> Vec<String> {
    let amounts = |amount: i64| [amount + 1, amount - 1, amount * 1_000, 0];
    let mut values: Vec<String> = match content {
        Content::Currency => vec!["USD".to_owned(), "JPY".to_owned()],
        Content::Amount => amounts(value.parse().unwrap()).iter().map(i64::to_string).collect(),
        Content::Items => {
            let items: serde_json::Value = serde_json::from_str(value).unwrap();
            let mut texts = Vec::new();
            for position in 0..items.as_array().unwrap().len() {
                for amount in amounts(items[position][2].as_i64().unwrap()) {
                    let mut items = items.clone();
                    items[position][2] = amount.into();
                    texts.push(items.to_string());
                }
            }
            texts
        }
    };
    values.extend(others.iter().find(|other| **other != value).map(|other| (*other).to_owned()));
    values.retain(|new| new != value && !new.starts_with('-'));
    values
}

/// The id of a row in the format of the audit.
fn audit_name(table: &str, id: &str) -> String {
    let bytes = u128::from_str_radix(id, 16).unwrap().to_be_bytes();
    match table {
        "ticket_types" => TicketTypeId::from_bytes(bytes).to_string(),
        "bookings" => BookingId::from_bytes(bytes).to_string(),
        "refunds" => RefundId::from_bytes(bytes).to_string(),
        _ => EventId::from_bytes(bytes).to_string(),
    }
}

pub(crate) async fn every_money_column_is_audited(harness: &impl RawDatabase) {
    let money = MONEY.iter().map(|(table, _, column, _)| format!("{table}.{column}"));
    let rest =
        NO_MONEY.iter().flat_map(|(table, columns)| columns.split(' ').map(move |c| format!("{table}.{c}")));
    assert_eq!(harness.columns().await, money.chain(rest).collect(), "add a new column to MONEY or NO_MONEY");

    let fixture = Fixture::new(harness);
    for currency in ["EUR", "USD"] {
        create_event(&fixture, currency).await;
    }
    fixture.assert_audit_clean().await;
    let (mut tried, mut undetected) = (0, Vec::new());
    for (table, key, column, content) in MONEY {
        let rows = harness.rows(table, key, column).await;
        assert!(rows.len() >= 2, "{table}");
        for (id, value) in &rows {
            let others: Vec<&str> = rows.iter().map(|(_, value)| value.as_str()).collect();
            for new in changed_values(*content, value, &others) {
                harness.set((table, key, id), column, &new).await;
                let found = fixture.store.audit().await.unwrap().violations;
                if !found.iter().any(|violation| violation.contains(&audit_name(table, id))) {
                    undetected.push(format!("{table}.{column} from {value} to {new}: {found:?}"));
                }
                tried += 1;
            }
            harness.set((table, key, id), column, value).await;
        }
    }
    assert_eq!(undetected, Vec::<String>::new(), "of {tried}");
    fixture.assert_audit_clean().await;
}

/// The documented gap of the audit: a price at which nothing was booked yet.
pub(crate) async fn a_price_without_a_booking_is_not_audited(harness: &impl RawDatabase) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(9)).await;
    harness.set(("ticket_types", "id", &hex(event.details.ticket_types[0].id)), "price", "1").await;
    fixture.assert_audit_clean().await;
    assert_eq!(fixture.run_ok(fixture.book(event.id, "a", 1)).await.total, eur(1));
    harness.set(("ticket_types", "id", &hex(event.details.ticket_types[0].id)), "price", "4500").await;
    let found = fixture.store.audit().await.unwrap().violations;
    assert!(found[0].contains("costs 4500 EUR, but bkg_"), "{found:?}");
}

fn hex(id: TicketTypeId) -> String {
    format!("{:032x}", u128::from_be_bytes(*id.bytes()))
}

#[async_trait]
impl RawDatabase for FileHarness {
    async fn columns(&self) -> BTreeSet<String> {
        let sql = "SELECT t.name || '.' || c.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c
                   WHERE t.type = 'table'";
        let file = rusqlite::Connection::open(&self.path).unwrap();
        let mut statement = file.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    async fn rows(&self, table: &str, key: &str, column: &str) -> Vec<(String, String)> {
        let file = rusqlite::Connection::open(&self.path).unwrap();
        let sql = format!("SELECT lower(hex({key})), CAST({column} AS TEXT) FROM {table}");
        let mut statement = file.prepare(&sql).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    async fn set(&self, (table, key, id): (&str, &str, &str), column: &str, value: &str) {
        let file = rusqlite::Connection::open(&self.path).unwrap();
        let sql = format!("UPDATE {table} SET {column} = ?1 WHERE {key} = X'{id}'");
        assert_eq!(file.execute(&sql, [value]).unwrap(), 1, "{sql} {value}");
    }
}

#[tokio::test]
async fn r5_every_money_column_is_audited() {
    every_money_column_is_audited(&FileHarness::new()).await;
}

#[tokio::test]
async fn r5_a_price_without_a_booking_is_not_audited() {
    a_price_without_a_booking_is_not_audited(&FileHarness::new()).await;
}
