//! Money changed behind the program's back: whatever column holds some, the audit names the row.

use std::collections::BTreeSet;

use async_trait::async_trait;
use domain::{
    BookingId, Event, EventId, EventPatch, NewEvent, RefundId, TicketSelection, TicketTypeId, TicketTypePatch,
};
use store::conformance::Harness;
use store::conformance::fixture::{Fixture, HOLD, edit, eur, expire};

use crate::conformance::FileHarness;

/// A database past the program, as text.
#[async_trait]
pub(crate) trait RawDatabase: Harness {
    /// Each column of each of our tables, as `table.column`.
    async fn columns(&self) -> BTreeSet<String>;

    /// Of each row of a table the id in that column, as 32 hexadecimal digits, and the text of another column.
    async fn rows(&self, table: &str, key: &str, column: &str) -> Vec<(String, String)>;

    /// Sets a column of the row with that id.
    async fn set(&self, row: (&str, &str, &str), column: &str, value: &str);
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Amount,
    Currency,
    /// Amounts among other things, as the third member of each item.
    Items,
}

/// Table, its id, the column, what it holds.
const MONEY: &[(&str, &str, &str, Holds)] = &[
    ("events", "id", "revenue", Holds::Amount),
    ("event_details", "event_id", "currency", Holds::Currency),
    ("ticket_types", "id", "price", Holds::Amount),
    ("bookings", "id", "items", Holds::Items),
    ("bookings", "id", "currency", Holds::Currency),
    ("bookings", "id", "total", Holds::Amount),
    ("refunds", "id", "amount", Holds::Amount),
    ("refunds", "id", "currency", Holds::Currency),
];

/// Every other column. A new column must be put here or above.
const NO_MONEY: &[(&str, &str)] = &[
    ("events", "id capacity held sold seq last_at pending confirmed cancelled expired"),
    ("event_details", "event_id name venue starts_at time_zone sales_start_at sales_end_at hold_seconds"),
    ("event_details", "cancel_cutoff_seconds max_tickets_per_booking max_tickets_per_user status version"),
    ("event_details", "created_at updated_at"),
    ("ticket_types", "event_id place id name capacity held sold"),
    ("bookings", "id event_id user_id status version last_seq hold_expires_at payment_method transaction_id"),
    ("bookings", "confirmed_at cancelled_at cancellation_reason refunded expired_at created_at updated_at"),
    ("user_limits", "event_id user_id tickets max_tickets"),
    ("ledger", "event_id seq type booking_id refund_id lines quantity from_status to_status available_after"),
    ("ledger", "previous_seq actor request_id at trace"),
    (
        "refunds",
        "id booking_id event_id transaction_id status reason provider_reference created_at settled_at",
    ),
    // Answers are bytes, as they were sent; they say what was so then.
    ("idempotency", "scope key fingerprint answer created_at"),
    ("published", "event_id stream seq"),
];

/// An event with a booking in every state, refunds, a change of prices, and bookings at the new ones.
async fn sell(fixture: &Fixture<'_>, currency: &str) -> Event {
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

/// The values that a column is changed to; `others` are those of other rows.
fn changed(holds: Holds, value: &str, others: &[&str]) -> Vec<String> {
    let amounts = |amount: i64| [amount + 1, amount - 1, amount * 1_000, 0];
    let mut values: Vec<String> = match holds {
        Holds::Currency => vec!["USD".to_owned(), "JPY".to_owned()],
        Holds::Amount => amounts(value.parse().unwrap()).iter().map(i64::to_string).collect(),
        Holds::Items => {
            let items: serde_json::Value = serde_json::from_str(value).unwrap();
            let mut texts = Vec::new();
            for place in 0..items.as_array().unwrap().len() {
                for amount in amounts(items[place][2].as_i64().unwrap()) {
                    let mut items = items.clone();
                    items[place][2] = amount.into();
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

/// A row's id as the program writes it.
fn name(table: &str, id: &str) -> String {
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
    assert_eq!(
        harness.columns().await,
        money.chain(rest).collect(),
        "say of a new column whether it holds money"
    );

    let fixture = Fixture::new(harness);
    for currency in ["EUR", "USD"] {
        sell(&fixture, currency).await;
    }
    fixture.assert_audit_clean().await;
    let (mut tried, mut unseen) = (0, Vec::new());
    for (table, key, column, holds) in MONEY {
        let rows = harness.rows(table, key, column).await;
        assert!(rows.len() >= 2, "{table}");
        for (id, value) in &rows {
            let others: Vec<&str> = rows.iter().map(|(_, value)| value.as_str()).collect();
            for new in changed(*holds, value, &others) {
                harness.set((table, key, id), column, &new).await;
                let found = fixture.store.audit().await.unwrap().violations;
                if !found.iter().any(|what| what.contains(&name(table, id))) {
                    unseen.push(format!("{table}.{column} from {value} to {new}: {found:?}"));
                }
                tried += 1;
            }
            harness.set((table, key, id), column, value).await;
        }
    }
    assert_eq!(unseen, Vec::<String>::new(), "of {tried}");
    fixture.assert_audit_clean().await;
}

/// What the documentation says that the audit cannot know: prices that nobody has paid yet.
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
