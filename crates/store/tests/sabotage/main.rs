//! Removal of guards: the database rejects overselling if the rules do not check the capacity, and the audit
//! detects it if the constraints do not check it either. These tests run in a process of their own, because a
//! removed guard stays removed.

mod on_postgres;

use std::sync::Arc;

use domain::{Timestamp, sabotage};
use store::conformance::StoreHarness;
use store::conformance::fixture::Fixture;
use store::{Sqlite, SqliteOptions};

/// A store in memory, with a clock that stands.
fn memory_harness() -> StoreHarness<Sqlite> {
    let now: Timestamp = "2027-01-15T12:00:00Z".parse().expect("an instant");
    let options = SqliteOptions { clock: Arc::new(move || now), inline: true };
    StoreHarness(Arc::new(Sqlite::in_memory(&options).expect("a store")))
}

#[tokio::test]
async fn constraints_catch_missing_rules_and_the_audit_catches_both() {
    sabotage::remove("capacity");
    let harness = memory_harness();
    let fixture = Fixture::new(&harness);
    let mut new = fixture.new_event(10);
    new.ticket_types = vec![fixture.ticket_type(Some(2)), fixture.ticket_type(None)];
    let [small, large] = [new.ticket_types[0].id, new.ticket_types[1].id];
    let event = fixture.create(new).await.id;
    let order =
        |kind, quantity| fixture.order(event, "a", domain::TicketSelection::Items(vec![(kind, quantity)]));
    let commands = vec![order(small, 2), order(small, 1), order(large, 9), order(large, 8), order(large, 1)];
    assert_eq!(fixture.outcome_codes(commands).await, ["ok", "failed", "failed", "ok", "failed"]);
    assert_eq!(fixture.event(event).await.available(), 0);
    fixture.assert_audit_clean().await;

    sabotage::remove("capacity-check");
    let harness = memory_harness();
    let fixture = Fixture::new(&harness);
    let event = fixture.create(fixture.new_event(10)).await.id;
    assert_eq!(
        fixture.outcome_codes(vec![fixture.book(event, "a", 10), fixture.book(event, "b", 1)]).await,
        ["ok", "ok"]
    );
    let report = fixture.store.audit().await.expect("an audit");
    assert!(!report.violations.is_empty(), "an oversold event is not detected");
}
