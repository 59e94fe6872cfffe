//! Answers kept under a key: a request that is repeated is answered, and not carried out again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use domain::Command;
use tokio::task::JoinSet;

use super::Harness;
use super::fixture::{Fixture, at, command, outcome_code, outcome_codes};
use crate::{Idempotency, Reply, Submission};

/// A command under a key; what is kept names the rendering, so that no two are alike.
fn under(scope: &str, key: &str, digest: u8, command: Command) -> Submission {
    static RENDERED: AtomicU32 = AtomicU32::new(0);
    let serialize_response = |_: &_, _| {
        let number = RENDERED.fetch_add(1, Ordering::Relaxed);
        Some(format!("\0\u{fffd} rendered {number}").into_bytes())
    };
    let keep = Idempotency {
        scope: scope.to_owned(),
        key: key.to_owned(),
        fingerprint: [digest; 32],
        serialize_response: Box::new(serialize_response),
    };
    Submission { command: Arc::new(command), idempotency: Some(Arc::new(keep)) }
}

fn kept(reply: &Reply) -> &[u8] {
    match reply {
        Reply::Stored { response, .. } => response,
        other => panic!("a kept answer was expected: {other:?}"),
    }
}

pub(super) async fn a_stored_response_is_replayed(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(3)).await.id;
    let order = || fixture.book(event, "a", 1);
    let longest = "\u{1f511}".repeat(255);
    let batch = vec![
        under("user:a", &longest, 1, order()),
        under("user:a", &longest, 1, order()),
        under("user:a", &longest, 2, order()),
        under("user:b", &longest, 2, order()),
        under("user:a", "k", 1, order()),
        // A refusal is an answer, too.
        under("user:a", "K", 1, order()),
        order().into(),
    ];
    let first = fixture.store.execute(batch.clone()).await;
    assert_eq!(outcome_codes(&first), ["kept", "replayed", "key reused", "kept", "kept", "kept", "sold_out"]);
    assert_eq!(kept(&first[0]), kept(&first[1]));
    assert_ne!(kept(&first[0]), kept(&first[3]));
    // Again, in any order and company, also after tickets came back.
    fixture
        .run(super::fixture::edit(event, domain::EventPatch { capacity: Some(9), ..Default::default() }))
        .await;
    for part in batch[..6].chunks(4) {
        let again = fixture.store.execute(part.to_vec()).await;
        for (reply, before) in again.iter().zip(if part.len() == 4 { &first[..4] } else { &first[4..6] }) {
            match before {
                Reply::KeyReused => assert_eq!(outcome_code(reply), "key reused"),
                _ => assert_eq!((outcome_code(reply), kept(reply)), ("replayed", kept(before))),
            }
        }
    }
    assert_eq!(fixture.event(event).await.inventory.held, 3);
    fixture.assert_audit_clean().await;
}

/// What is not decided is not kept, and neither is what the asker does not want kept.
pub(super) async fn only_decided_commands_store_a_response(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(9)).await.id;
    let taken = fixture.run_ok(fixture.book(event, "a", 1)).await;
    let mut failing = fixture.book(event, "a", 1);
    if let domain::Action::Book(order) = &mut failing.action {
        order.booking_id = taken.id;
    }
    let mut unwanted = under("s", "unwanted", 1, fixture.book(event, "a", 1));
    let keep = Idempotency {
        scope: "s".to_owned(),
        key: "unwanted".to_owned(),
        fingerprint: [1; 32],
        serialize_response: Box::new(|_, _| None),
    };
    unwanted.idempotency = Some(Arc::new(keep));
    // The batch is halved around the one that fails; the others are kept once.
    let batch = vec![
        under("s", "before", 1, fixture.book(event, "a", 1)),
        under("s", "failing", 1, failing),
        unwanted,
        under("s", "after", 1, fixture.book(event, "a", 1)),
    ];
    assert_eq!(outcome_codes(&fixture.store.execute(batch.clone()).await), ["kept", "failed", "ok", "kept"]);
    let mut retried = batch.clone();
    // The same keys: those that were not kept are free for something else.
    retried[1] = under("s", "failing", 2, fixture.book(event, "a", 1));
    retried[2] = under("s", "unwanted", 2, fixture.book(event, "a", 1));
    assert_eq!(
        outcome_codes(&fixture.store.execute(retried).await),
        ["replayed", "kept", "kept", "replayed"]
    );
    assert_eq!(fixture.event(event).await.inventory.held, 6);
    fixture.assert_audit_clean().await;
}

pub(super) async fn concurrent_commands_with_one_key_run_once(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(99)).await.id;
    let mut callers = JoinSet::new();
    for _ in 0..24 {
        let (store, order) = (Arc::clone(&fixture.store), fixture.book(event, "a", 1));
        callers.spawn(async move { store.execute(vec![under("s", "k", 1, order)]).await });
    }
    let replies: Vec<_> = callers.join_all().await.into_iter().flatten().collect();
    assert_eq!(replies.iter().filter(|reply| outcome_code(reply) == "kept").count(), 1);
    assert_eq!(replies.iter().filter(|reply| outcome_code(reply) == "replayed").count(), 23);
    assert!(replies.iter().all(|reply| kept(reply) == kept(&replies[0])));
    assert_eq!(fixture.event(event).await.inventory.held, 1);
}

pub(super) async fn stored_responses_are_pruned_in_bounded_steps(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(9)).await.id;
    let keyed = |key: &str| under("s", key, 1, fixture.book(event, "a", 1));
    let batch = ["a", "b", "c", "d", "e"].map(keyed).to_vec();
    fixture.store.execute(batch.clone()).await;
    let prune =
        async |before: &str, limit| fixture.store.prune_keys(at(before), limit).await.expect("a prune");
    assert_eq!(prune("2000-01-01T00:00:00Z", 100).await, 0);
    assert_eq!(outcome_codes(&fixture.store.execute(batch.clone()).await), ["replayed"; 5]);
    let left = "2199-01-01T00:00:00Z";
    assert_eq!(
        [prune(left, 2).await, prune(left, 2).await, prune(left, 2).await, prune(left, 2).await],
        [2, 2, 1, 0]
    );
    // Forgotten: so the same key stands for something new.
    let fresh = under("s", "a", 2, command(fixture.book(event, "a", 1).action));
    assert_eq!(outcome_codes(&fixture.store.execute(vec![fresh]).await), ["kept"]);
    fixture.assert_audit_clean().await;
}
