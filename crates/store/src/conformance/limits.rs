//! The limit per user: counted in rows of its own, and never passed on any way.

use domain::{EventPatch, NewEvent};

use super::Rig;
use super::stage::{HOLD, Stage, edit, expire};

const OVER: &str = "booking_limit_exceeded";

fn limited(stage: &Stage<'_>, limit: u32) -> NewEvent {
    NewEvent { max_tickets_per_user: Some(limit), ..stage.concert(100) }
}

fn limit_to(limit: Option<u32>) -> EventPatch {
    EventPatch { max_tickets_per_user: Some(limit), ..EventPatch::default() }
}

pub(super) async fn a_limit_holds_within_and_across_batches(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let (event, other) =
        (stage.create(limited(&stage, 3)).await.id, stage.create(limited(&stage, 3)).await.id);
    let batch = |quantities: [u32; 3]| quantities.map(|count| stage.book(event, "a", count)).to_vec();
    assert_eq!(stage.words(batch([4, 2, 2])).await, [OVER, "ok", OVER]);
    assert_eq!(stage.words(batch([2, 1, 1])).await, [OVER, "ok", OVER]);
    // Neither another event nor another user counts.
    let commands = vec![stage.book(other, "a", 3), stage.book(event, "A", 3), stage.book(event, "b", 3)];
    assert_eq!(stage.words(commands).await, ["ok"; 3]);
    stage.clean().await;
}

pub(super) async fn tickets_given_back_may_be_booked_again(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(limited(&stage, 3)).await.id;
    let held = stage.hold(event, &[("a", 1), ("a", 2)]).await;
    let commands = vec![
        stage.cancel(&held[1]),
        stage.book(event, "a", 3),
        stage.book(event, "a", 2),
        stage.confirm(&held[0], "t"),
        stage.book(event, "a", 1),
        stage.cancel(&held[0]),
        stage.book(event, "a", 1),
    ];
    assert_eq!(stage.words(commands).await, ["ok", OVER, "ok", "ok", OVER, "ok", "ok"]);
    stage.clean().await;

    // Also where it is not the user who gives them back: an overdue hold, freed by name.
    let slow = stage.hold(event, &[("b", 3)]).await;
    rig.advance(HOLD).await;
    let commands = vec![expire(&slow[0]), stage.book(event, "b", 2), stage.book(event, "b", 2)];
    assert_eq!(stage.words(commands).await, ["ok", "ok", OVER]);
    stage.clean().await;

    // And one that was freed for the sake of somebody else's order.
    let full = stage.create(NewEvent { capacity: 4, ..limited(&stage, 3) }).await.id;
    stage.hold(full, &[("c", 3), ("d", 1)]).await;
    rig.advance(HOLD).await;
    let commands = vec![stage.book(full, "e", 3), stage.book(full, "c", 1), stage.book(full, "c", 1)];
    assert_eq!(stage.words(commands).await, ["ok", "ok", "sold_out"]);
    stage.clean().await;
}

pub(super) async fn a_limit_holds_for_late_payments(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(limited(&stage, 3)).await.id;
    let held = stage.hold(event, &[("a", 2), ("b", 2)]).await;
    rig.advance(HOLD).await;
    assert_eq!(stage.words(vec![expire(&held[0]), expire(&held[1])]).await, ["ok"; 2]);
    assert_eq!(stage.words(vec![stage.book(event, "a", 2)]).await, ["ok"]);
    let commands =
        vec![stage.confirm(&held[0], "t"), stage.confirm(&held[1], "t"), stage.book(event, "b", 2)];
    assert_eq!(stage.words(commands).await, ["hold_expired", "ok", OVER]);
    stage.clean().await;
}

pub(super) async fn a_limit_may_be_raised_and_lifted(rig: &dyn Rig) {
    let stage = Stage::new(rig);
    let event = stage.create(limited(&stage, 2)).await.id;
    let held = stage.hold(event, &[("a", 2)]).await;
    let commands = vec![
        stage.book(event, "a", 1),
        edit(event, limit_to(Some(1))),
        edit(event, limit_to(Some(4))),
        stage.book(event, "a", 2),
        stage.book(event, "a", 1),
    ];
    assert_eq!(stage.words(commands).await, [OVER, "validation_failed", "ok", "ok", OVER]);
    stage.clean().await;
    // Counted and lifted in one batch: no count is left to be held to a limit.
    let commands = vec![
        stage.cancel(&held[0]),
        stage.book(event, "b", 4),
        edit(event, limit_to(None)),
        stage.book(event, "b", 9),
        stage.book(event, "a", 9),
        edit(event, limit_to(Some(9))),
    ];
    assert_eq!(stage.words(commands).await, ["ok", "ok", "ok", "ok", "ok", "validation_failed"]);
    let ledger: Vec<_> = stage.ledger(event).await.iter().map(|entry| entry.seq).collect();
    assert_eq!(ledger, (1..=9).collect::<Vec<_>>());
    stage.clean().await;
}
