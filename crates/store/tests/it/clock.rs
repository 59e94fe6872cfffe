//! A clock that steps back: the ledger never does, and holds that were overdue stay so.

use domain::BookingStatus;
use store::conformance::Rig;
use store::conformance::stage::{HOLD, Stage};

use crate::conforms::FileRig;

#[tokio::test]
async fn a_ledger_never_runs_backwards() {
    let rig = FileRig::new();
    let stage = Stage::new(&rig);
    let event = stage.create(stage.concert(10)).await.id;
    let first = stage.done(stage.book(event, "a", 1)).await;
    rig.clock.shift(-3_600);
    let second = stage.done(stage.book(event, "b", 1)).await;
    assert_eq!(second.created_at, first.created_at);
    let other = stage.create(stage.concert(10)).await;
    assert!(other.about.created_at < first.created_at, "another event has a clock of its own");
    stage.clean().await;
}

/// "Sold out" is never said while a hold is overdue by the event's own time.
#[tokio::test]
async fn a_hold_overdue_by_the_ledger_is_freed() {
    let rig = FileRig::new();
    let stage = Stage::new(&rig);
    let event = stage.create(stage.concert(2)).await.id;
    let held = stage.hold(event, &[("a", 1)]).await;
    rig.advance(HOLD).await;
    stage.hold(event, &[("b", 1)]).await;
    rig.clock.shift(-60);
    assert_eq!(stage.words(vec![stage.book(event, "c", 1)]).await, ["ok"]);
    assert_eq!(stage.statuses(&held).await, [BookingStatus::Expired]);
    stage.clean().await;
}
