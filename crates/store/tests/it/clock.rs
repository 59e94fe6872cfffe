//! A clock that steps back: the ledger never does, and deadlines follow the clock. One that goes on: keys expire.

use std::sync::Arc;

use domain::{BookingStatus, Clock as _};
use store::conformance::Rig;
use store::conformance::stage::{HOLD, Stage, words};
use store::{KEY_KEPT_SECONDS, Keep, Submission};

use crate::conforms::FileRig;

#[tokio::test]
async fn a_ledger_never_runs_backwards() {
    let rig = FileRig::new();
    let stage = Stage::new(&rig);
    let event = stage.create(stage.concert(10)).await.id;
    let first = stage.done(stage.book(event, "a", 1)).await;
    rig.clock.shift(-3_600);
    let second = stage.done(stage.book(event, "b", 1)).await;
    assert_eq!(second.created_at, rig.clock.now());
    let ledger = stage.ledger(event).await;
    assert!(ledger.iter().all(|entry| entry.at == first.created_at), "dated as the entry before");
    let other = stage.create(stage.concert(10)).await;
    assert!(other.about.created_at < first.created_at, "another event has a clock of its own");
    stage.clean().await;
}

/// An order frees a hold that is overdue by the clock, and none that only the ledger's last date has passed.
#[tokio::test]
async fn r2_a_hold_is_overdue_by_the_clock_alone() {
    let rig = FileRig::new();
    let stage = Stage::new(&rig);
    let event = stage.create(stage.concert(2)).await.id;
    let held = stage.hold(event, &[("a", 1)]).await;
    rig.advance(HOLD).await;
    stage.hold(event, &[("b", 1)]).await;
    rig.clock.shift(-60);
    assert_eq!(stage.words(vec![stage.book(event, "c", 1)]).await, ["sold_out"]);
    assert_eq!(stage.statuses(&held).await, [BookingStatus::Pending]);
    rig.clock.shift(60);
    assert_eq!(stage.words(vec![stage.book(event, "c", 1)]).await, ["ok"]);
    assert_eq!(stage.statuses(&held).await, [BookingStatus::Expired]);
    stage.clean().await;
}

/// A key counts for a day, whether or not its row has been pruned by then.
#[tokio::test]
async fn a_key_is_free_again_after_a_day() {
    let rig = FileRig::new();
    let stage = Stage::new(&rig);
    let event = stage.create(stage.concert(9)).await.id;
    let keyed = || {
        let keep = Keep {
            scope: "s".to_owned(),
            key: "k".to_owned(),
            fingerprint: [1; 32],
            render: Box::new(|_, _| Some(b"answer".to_vec())),
        };
        let command = Arc::new(stage.book(event, "a", 1));
        vec![Submission { command, keep: Some(Arc::new(keep)) }]
    };
    let day = i64::from(KEY_KEPT_SECONDS);
    for (wait, expected) in
        [(0, "kept"), (day - 1, "replayed"), (1, "kept"), (day - 1, "replayed"), (1, "kept")]
    {
        rig.clock.shift(wait);
        assert_eq!(words(&stage.store.execute(keyed()).await), [expected], "after {wait} s");
    }
    assert_eq!(
        stage.store.prune_keys(domain::Timestamp::from_micros(i64::MAX / 64).unwrap(), 9).await.unwrap(),
        1
    );
}
