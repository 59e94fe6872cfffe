//! The time of a batch of orders by the number of ticket types of its event, on SQLite in memory and on a
//! PostgreSQL server: `cargo bench -p store --bench batch`.
//!
//! A batch loads its event with all ticket types, and writes only those whose counters change. Prints figures
//! and asserts no thresholds.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::sync::Arc;

use domain::{Command, EventId, TicketSelection, TicketTypeId, Timestamp};
use store::conformance::fixture::{Fixture, outcome_codes};
use store::conformance::{Harness, StoreHarness};
use store::{Postgres, Sqlite, SqliteOptions};
use testkit::PostgresServer;
use tokio::time::Instant;

/// The sides of a comparison alternate in so many rounds, so that a slow moment of the machine affects all.
const ROUNDS: usize = 300;
/// The numbers of ticket types that are compared with the first of them.
const TICKET_TYPES: [usize; 3] = [1, 10, 50];

#[tokio::main]
async fn main() {
    let clock = || Timestamp::from_micros(1_800_000_000_000_000).expect("an instant");
    let options = SqliteOptions { clock: Arc::new(clock), inline: true };
    let sqlite = Sqlite::in_memory(&options).expect("a store");
    compare("SQLite", StoreHarness(Arc::new(sqlite))).await;
    let database = PostgresServer::shared().await.create_database().await;
    let url = database.url().parse().expect("a URL");
    let postgres = Postgres::open(&url, true).await.expect("a store");
    compare("PostgreSQL", StoreHarness(Arc::new(postgres))).await;
}

/// Measures batches of one order and of 64 orders, each for one ticket of the first ticket type.
async fn compare(database: &str, harness: impl Harness) {
    let fixture = Fixture::new(&harness);
    let mut events = Vec::new();
    for count in TICKET_TYPES {
        let mut new = fixture.new_event(1_000_000);
        new.ticket_types = (0..count).map(|_| fixture.ticket_type(None)).collect();
        let ticket_type = new.ticket_types[0].id;
        events.push((fixture.create(new).await.id, ticket_type));
    }
    for orders in [1, 64] {
        let mut times = [const { Vec::new() }; TICKET_TYPES.len()];
        for _ in 0..ROUNDS {
            for ((event, ticket_type), times) in events.iter().zip(&mut times) {
                let batch = (0..orders).map(|_| order(&fixture, *event, *ticket_type)).collect();
                let began = Instant::now();
                let replies = fixture.execute(batch).await;
                times.push(began.elapsed().as_secs_f64() * 1e6);
                assert!(outcome_codes(&replies).iter().all(|code| *code == "ok"), "{replies:?}");
            }
        }
        let medians = times.map(median);
        for (count, median) in TICKET_TYPES.iter().zip(medians) {
            let ratio = median / medians[0];
            println!("{database}, {orders} orders, {count} ticket types: {median:.0} us, ratio {ratio:.2}");
        }
    }
}

fn order(fixture: &Fixture<'_>, event: EventId, ticket_type: TicketTypeId) -> Command {
    fixture.order(event, "buyer", TicketSelection::Items(vec![(ticket_type, 1)]))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
