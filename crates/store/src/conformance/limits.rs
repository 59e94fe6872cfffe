//! The limit per user: stored counts, and every way in which a user's count changes.

use domain::{EventPatch, NewEvent};

use super::Harness;
use super::fixture::{Fixture, HOLD, edit, expire};

const OVER: &str = "booking_limit_exceeded";

fn limited(fixture: &Fixture<'_>, limit: u32) -> NewEvent {
    NewEvent { max_tickets_per_user: Some(limit), ..fixture.new_event(100) }
}

fn limit_to(limit: Option<u32>) -> EventPatch {
    EventPatch { max_tickets_per_user: Some(limit), ..EventPatch::default() }
}

pub(super) async fn a_limit_holds_within_and_across_batches(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let (event, other) =
        (fixture.create(limited(&fixture, 3)).await.id, fixture.create(limited(&fixture, 3)).await.id);
    let batch = |quantities: [u32; 3]| quantities.map(|count| fixture.book(event, "a", count)).to_vec();
    assert_eq!(fixture.outcome_codes(batch([4, 2, 2])).await, [OVER, "ok", OVER]);
    assert_eq!(fixture.outcome_codes(batch([2, 1, 1])).await, [OVER, "ok", OVER]);
    // Tickets of other events and other users do not count.
    let commands =
        vec![fixture.book(other, "a", 3), fixture.book(event, "A", 3), fixture.book(event, "b", 3)];
    assert_eq!(fixture.outcome_codes(commands).await, ["ok"; 3]);
    fixture.assert_audit_clean().await;
}

pub(super) async fn returned_tickets_can_be_booked_again(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(limited(&fixture, 3)).await.id;
    let held = fixture.hold(event, &[("a", 1), ("a", 2)]).await;
    let commands = vec![
        fixture.cancel(&held[1]),
        fixture.book(event, "a", 3),
        fixture.book(event, "a", 2),
        fixture.confirm(&held[0], "t"),
        fixture.book(event, "a", 1),
        fixture.cancel(&held[0]),
        fixture.book(event, "a", 1),
    ];
    assert_eq!(fixture.outcome_codes(commands).await, ["ok", OVER, "ok", "ok", OVER, "ok", "ok"]);
    fixture.assert_audit_clean().await;

    // Also if the tickets return by an expiry of the overdue hold.
    let slow = fixture.hold(event, &[("b", 3)]).await;
    harness.advance(HOLD).await;
    let commands = vec![expire(&slow[0]), fixture.book(event, "b", 2), fixture.book(event, "b", 2)];
    assert_eq!(fixture.outcome_codes(commands).await, ["ok", "ok", OVER]);
    fixture.assert_audit_clean().await;

    // And if the hold is freed for the order of another user.
    let full = fixture.create(NewEvent { capacity: 4, ..limited(&fixture, 3) }).await.id;
    fixture.hold(full, &[("c", 3), ("d", 1)]).await;
    harness.advance(HOLD).await;
    let commands = vec![fixture.book(full, "e", 3), fixture.book(full, "c", 1), fixture.book(full, "c", 1)];
    assert_eq!(fixture.outcome_codes(commands).await, ["ok", "ok", "sold_out"]);
    fixture.assert_audit_clean().await;
}

pub(super) async fn a_limit_holds_for_late_payments(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(limited(&fixture, 3)).await.id;
    let held = fixture.hold(event, &[("a", 2), ("b", 2)]).await;
    harness.advance(HOLD).await;
    assert_eq!(fixture.outcome_codes(vec![expire(&held[0]), expire(&held[1])]).await, ["ok"; 2]);
    assert_eq!(fixture.outcome_codes(vec![fixture.book(event, "a", 2)]).await, ["ok"]);
    let commands =
        vec![fixture.confirm(&held[0], "t"), fixture.confirm(&held[1], "t"), fixture.book(event, "b", 2)];
    assert_eq!(fixture.outcome_codes(commands).await, ["hold_expired", "ok", OVER]);
    fixture.assert_audit_clean().await;
}

pub(super) async fn a_limit_may_be_raised_and_lifted(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(limited(&fixture, 2)).await.id;
    let held = fixture.hold(event, &[("a", 2)]).await;
    let commands = vec![
        fixture.book(event, "a", 1),
        edit(event, limit_to(Some(1))),
        edit(event, limit_to(Some(4))),
        fixture.book(event, "a", 2),
        fixture.book(event, "a", 1),
    ];
    assert_eq!(fixture.outcome_codes(commands).await, [OVER, "validation_failed", "ok", "ok", OVER]);
    fixture.assert_audit_clean().await;
    // A batch counts tickets and then removes the limit: its counts are not written.
    let commands = vec![
        fixture.cancel(&held[0]),
        fixture.book(event, "b", 4),
        edit(event, limit_to(None)),
        fixture.book(event, "b", 9),
        fixture.book(event, "a", 9),
        edit(event, limit_to(Some(9))),
    ];
    assert_eq!(fixture.outcome_codes(commands).await, ["ok", "ok", "ok", "ok", "ok", "validation_failed"]);
    let ledger: Vec<_> = fixture.ledger(event).await.iter().map(|entry| entry.seq).collect();
    assert_eq!(ledger, (1..=9).collect::<Vec<_>>());
    fixture.assert_audit_clean().await;
}
