//! Idempotency keys: a repeated request gets the stored response, and is not executed again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use domain::Command;
use tokio::task::JoinSet;

use super::Harness;
use super::fixture::{Fixture, at, command, outcome_code, outcome_codes};
use crate::{CommandOutput, Idempotency, Reply, Submission};

/// Submits a command under a key. The response contains a serial number, so that no two are equal.
fn with_key(scope: &str, key: &str, digest: u8, command: Command) -> Submission {
    static SERIALIZED: AtomicU32 = AtomicU32::new(0);
    let serialize_response = |_: &_, _| {
        let number = SERIALIZED.fetch_add(1, Ordering::Relaxed);
        Some(format!("\0\u{fffd} response {number}").into_bytes())
    };
    let idempotency = Idempotency {
        scope: scope.to_owned(),
        key: key.to_owned(),
        fingerprint: [digest; 32],
        serialize_response: Box::new(serialize_response),
    };
    Submission { command: Arc::new(command), idempotency: Some(Arc::new(idempotency)) }
}

fn stored_response(reply: &Reply) -> &[u8] {
    match reply {
        Reply::Decided(CommandOutput::Stored { response, .. }) => response,
        other => panic!("a stored response was expected: {other:?}"),
    }
}

pub(super) async fn a_stored_response_is_replayed(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(3)).await.id;
    let order = || fixture.book(event, "a", 1);
    let longest = "\u{1f511}".repeat(255);
    let batch = vec![
        with_key("user:a", &longest, 1, order()),
        with_key("user:a", &longest, 1, order()),
        with_key("user:a", &longest, 2, order()),
        with_key("user:b", &longest, 2, order()),
        with_key("user:a", "k", 1, order()),
        // The response to a refused command is stored, too.
        with_key("user:a", "K", 1, order()),
        order().into(),
    ];
    let first = fixture.store.execute(batch.clone()).await;
    assert_eq!(
        outcome_codes(&first),
        ["stored", "replayed", "key reused", "stored", "stored", "stored", "sold_out"]
    );
    assert_eq!(stored_response(&first[0]), stored_response(&first[1]));
    assert_ne!(stored_response(&first[0]), stored_response(&first[3]));
    // Again, in other batches, and after the capacity was raised.
    fixture
        .run(super::fixture::edit(event, domain::EventPatch { capacity: Some(9), ..Default::default() }))
        .await;
    for part in batch[..6].chunks(4) {
        let again = fixture.store.execute(part.to_vec()).await;
        for (reply, before) in again.iter().zip(if part.len() == 4 { &first[..4] } else { &first[4..6] }) {
            match before {
                Reply::KeyReused => assert_eq!(outcome_code(reply), "key reused"),
                _ => assert_eq!(
                    (outcome_code(reply), stored_response(reply)),
                    ("replayed", stored_response(before))
                ),
            }
        }
    }
    assert_eq!(fixture.event(event).await.inventory.held, 3);
    fixture.assert_audit_clean().await;
}

/// No response is stored for a command that failed, or whose serializer returns `None`.
pub(super) async fn only_decided_commands_store_a_response(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(9)).await.id;
    let taken = fixture.run_ok(fixture.book(event, "a", 1)).await;
    let mut failing = fixture.book(event, "a", 1);
    if let domain::Action::Book(order) = &mut failing.action {
        order.booking_id = taken.id;
    }
    let mut unwanted = with_key("s", "unwanted", 1, fixture.book(event, "a", 1));
    let idempotency = Idempotency {
        scope: "s".to_owned(),
        key: "unwanted".to_owned(),
        fingerprint: [1; 32],
        serialize_response: Box::new(|_, _| None),
    };
    unwanted.idempotency = Some(Arc::new(idempotency));
    // The batch is halved around the failing command; the other responses are stored once.
    let batch = vec![
        with_key("s", "before", 1, fixture.book(event, "a", 1)),
        with_key("s", "failing", 1, failing),
        unwanted,
        with_key("s", "after", 1, fixture.book(event, "a", 1)),
    ];
    assert_eq!(
        outcome_codes(&fixture.store.execute(batch.clone()).await),
        ["stored", "failed", "ok", "stored"]
    );
    let mut retried = batch.clone();
    // The same keys: those without a stored response can be used for other requests.
    retried[1] = with_key("s", "failing", 2, fixture.book(event, "a", 1));
    retried[2] = with_key("s", "unwanted", 2, fixture.book(event, "a", 1));
    assert_eq!(
        outcome_codes(&fixture.store.execute(retried).await),
        ["replayed", "stored", "stored", "replayed"]
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
        callers.spawn(async move { store.execute(vec![with_key("s", "k", 1, order)]).await });
    }
    let replies: Vec<_> = callers.join_all().await.into_iter().flatten().collect();
    assert_eq!(replies.iter().filter(|reply| outcome_code(reply) == "stored").count(), 1);
    assert_eq!(replies.iter().filter(|reply| outcome_code(reply) == "replayed").count(), 23);
    assert!(replies.iter().all(|reply| stored_response(reply) == stored_response(&replies[0])));
    assert_eq!(fixture.event(event).await.inventory.held, 1);
}

pub(super) async fn stored_responses_are_pruned_in_bounded_steps(harness: &dyn Harness) {
    let fixture = Fixture::new(harness);
    let event = fixture.create(fixture.new_event(9)).await.id;
    let keyed = |key: &str| with_key("s", key, 1, fixture.book(event, "a", 1));
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
    // After the deletion, the key can be used for another request.
    let fresh = with_key("s", "a", 2, command(fixture.book(event, "a", 1).action));
    assert_eq!(outcome_codes(&fixture.store.execute(vec![fresh]).await), ["stored"]);
    fixture.assert_audit_clean().await;
}
