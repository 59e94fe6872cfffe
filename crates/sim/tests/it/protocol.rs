//! The protocol, exhausted: every order in which a few deeds can meet, with locks that vanish and one death.

use sim::model::{ModelConfig, Operation, search};

/// Two orders for one place: paid late and twice, given up, cleaned up.
const LAST_TICKET: ModelConfig = ModelConfig {
    capacity: 1,
    one_user: false,
    operations: &[
        Operation::Book(0),
        Operation::Book(1),
        Operation::Confirm(0, 0),
        Operation::Confirm(0, 0),
        Operation::Confirm(0, 1),
        Operation::Confirm(1, 0),
        Operation::Cancel(0),
        Operation::Cancel(1),
        Operation::Expire(0),
        Operation::Expire(1),
    ],
};

/// Room for both, but one user who may have only one, and somebody who wants to take it away.
const ONE_USER: ModelConfig = ModelConfig {
    capacity: 2,
    one_user: true,
    operations: &[
        Operation::Book(0),
        Operation::Book(1),
        Operation::Confirm(0, 0),
        Operation::Confirm(0, 0),
        Operation::Confirm(1, 0),
        Operation::Cancel(0),
        Operation::CancelForeign(1),
        Operation::Expire(0),
        Operation::Expire(1),
    ],
};

/// An event that ends while payments are on their way.
const CANCELLED_EVENT: ModelConfig = ModelConfig {
    capacity: 1,
    one_user: false,
    operations: &[
        Operation::Book(0),
        Operation::Book(1),
        Operation::Confirm(0, 0),
        Operation::Confirm(0, 0),
        Operation::Confirm(1, 1),
        Operation::Cancel(0),
        Operation::Expire(0),
        Operation::CancelEvent,
        Operation::CancelEventBooking(0),
        Operation::CancelEventBooking(1),
    ],
};

/// Fewer deeds, in which every guard of the protocol is needed all the same: to hunt for missing ones.
#[cfg(feature = "sabotage")]
pub(crate) const SMALL_MODELS: [ModelConfig; 3] = [
    ModelConfig {
        operations: &[
            Operation::Book(0),
            Operation::Book(1),
            Operation::Confirm(0, 0),
            Operation::Confirm(0, 0),
            Operation::Cancel(0),
            Operation::Expire(0),
        ],
        ..LAST_TICKET
    },
    ModelConfig {
        operations: &[
            Operation::Book(0),
            Operation::Book(1),
            Operation::Confirm(0, 0),
            Operation::CancelForeign(0),
            Operation::Expire(0),
        ],
        ..ONE_USER
    },
    ModelConfig {
        operations: &[
            Operation::Book(0),
            Operation::Confirm(0, 0),
            Operation::Confirm(0, 0),
            Operation::CancelEvent,
            Operation::CancelEventBooking(0),
            Operation::Book(1),
        ],
        ..CANCELLED_EVENT
    },
];

/// What no setting may leave out.
const ALWAYS: &[&str] = &[
    "a lock is lost",
    "a process dies",
    "goes on without the lock",
    "an overdue hold is freed for somebody",
    "absent to pending",
    "pending to confirmed",
    "pending to cancelled",
    "pending to expired",
    "expired to confirmed",
    "confirmed to cancelled",
    "hold_expired",
    "invalid_state",
];

fn exhausted(config: &ModelConfig, states: usize, sometimes: &[&str]) {
    let all = search(config).unwrap_or_else(|broken| panic!("{broken:#?}"));
    assert!(all.states >= states, "only {} states", all.states);
    let missing: Vec<_> = ALWAYS.iter().chain(sometimes).filter(|what| !all.seen.contains(**what)).collect();
    assert!(missing.is_empty(), "never met: {missing:?}");
}

#[test]
fn the_last_ticket_is_sold_once_in_every_order() {
    exhausted(&LAST_TICKET, 1_000_000, &["sold_out"]);
}

#[test]
fn one_user_keeps_to_the_limit_in_every_order() {
    exhausted(&ONE_USER, 400_000, &["booking_limit_exceeded", "not_found"]);
}

#[test]
fn every_payment_for_a_cancelled_event_is_refunded_in_every_order() {
    exhausted(&CANCELLED_EVENT, 300_000, &["event_cancelled"]);
}
