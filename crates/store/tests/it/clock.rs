//! A clock that steps back: the dates of a ledger never decrease, and deadlines follow the clock. Keys expire
//! by it.

use std::sync::Arc;

use domain::{BookingStatus, Clock as _};
use store::conformance::Harness;
use store::conformance::fixture::{Fixture, HOLD, outcome_codes};
use store::{IDEMPOTENCY_TTL_SECONDS, Idempotency, Submission};

use crate::conformance::FileHarness;

#[tokio::test]
async fn ledger_times_never_decrease() {
    let harness = FileHarness::new();
    let fixture = Fixture::new(&harness);
    let event = fixture.create(fixture.new_event(10)).await.id;
    let first = fixture.run_ok(fixture.book(event, "a", 1)).await;
    harness.clock.shift(-3_600);
    let second = fixture.run_ok(fixture.book(event, "b", 1)).await;
    assert_eq!(second.created_at, harness.clock.now());
    let ledger = fixture.ledger(event).await;
    assert!(ledger.iter().all(|entry| entry.at == first.created_at), "an entry is dated as the previous one");
    let other = fixture.create(fixture.new_event(10)).await;
    assert!(other.details.created_at < first.created_at, "the dates of another event are independent");
    fixture.assert_audit_clean().await;
}

/// An order frees a hold that is overdue by the clock, and not one that is overdue only by the ledger's last
/// date.
#[tokio::test]
async fn r2_a_hold_is_overdue_by_the_clock_alone() {
    let harness = FileHarness::new();
    let fixture = Fixture::new(&harness);
    let event = fixture.create(fixture.new_event(2)).await.id;
    let held = fixture.hold(event, &[("a", 1)]).await;
    harness.advance(HOLD).await;
    fixture.hold(event, &[("b", 1)]).await;
    harness.clock.shift(-60);
    assert_eq!(fixture.outcome_codes(vec![fixture.book(event, "c", 1)]).await, ["sold_out"]);
    assert_eq!(fixture.statuses(&held).await, [BookingStatus::Pending]);
    harness.clock.shift(60);
    assert_eq!(fixture.outcome_codes(vec![fixture.book(event, "c", 1)]).await, ["ok"]);
    assert_eq!(fixture.statuses(&held).await, [BookingStatus::Expired]);
    fixture.assert_audit_clean().await;
}

/// A key expires after a day, even if its row has not been pruned by then.
#[tokio::test]
async fn a_key_expires_after_a_day() {
    let harness = FileHarness::new();
    let fixture = Fixture::new(&harness);
    let event = fixture.create(fixture.new_event(9)).await.id;
    let keyed = || {
        let idempotency = Idempotency {
            scope: "s".to_owned(),
            key: "k".to_owned(),
            fingerprint: [1; 32],
            serialize_response: Box::new(|_, _| Some(b"response".to_vec())),
        };
        let command = Arc::new(fixture.book(event, "a", 1));
        vec![Submission { command, idempotency: Some(Arc::new(idempotency)) }]
    };
    let day = i64::from(IDEMPOTENCY_TTL_SECONDS);
    for (wait, expected) in
        [(0, "stored"), (day - 1, "replayed"), (1, "stored"), (day - 1, "replayed"), (1, "stored")]
    {
        harness.clock.shift(wait);
        assert_eq!(outcome_codes(&fixture.store.execute(keyed()).await), [expected], "after {wait} s");
    }
    assert_eq!(
        fixture.store.prune_keys(domain::Timestamp::from_micros(i64::MAX / 64).unwrap(), 9).await.unwrap(),
        1
    );
}
