//! Exhaustive searches of the protocol model: every interleaving, with lost locks and one crash.

use sim::model::{ModelConfig, Operation, search};

/// Two orders for one ticket, with late and repeated payments, cancellations and expiry.
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

/// Two tickets, but one user with a limit of one, and another user who tries to cancel the booking.
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

/// An event that is cancelled while payments are in flight.
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

/// Fewer operations that still need every guard of the protocol, for tests that remove guards.
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

/// Coverage goals of every configuration.
const COVERAGE_GOALS: &[&str] = &[
    "a lock is lost",
    "a process crashes",
    "continues without the lock",
    "an overdue hold is freed for another command",
    "absent to pending",
    "pending to confirmed",
    "pending to cancelled",
    "pending to expired",
    "expired to confirmed",
    "confirmed to cancelled",
    "hold_expired",
    "invalid_state",
];

fn assert_exhausted(config: &ModelConfig, states_min: usize, more_goals: &[&str]) {
    let stats = search(config).unwrap_or_else(|counterexample| panic!("{counterexample:#?}"));
    assert!(stats.states >= states_min, "only {} states", stats.states);
    let goals = COVERAGE_GOALS.iter().chain(more_goals);
    let missing: Vec<_> = goals.filter(|goal| !stats.coverage.contains(**goal)).collect();
    assert!(missing.is_empty(), "goals not reached: {missing:?}");
}

#[test]
fn the_last_ticket_is_sold_once_in_every_order() {
    assert_exhausted(&LAST_TICKET, 1_000_000, &["sold_out"]);
}

#[test]
fn one_user_keeps_to_the_limit_in_every_order() {
    assert_exhausted(&ONE_USER, 400_000, &["booking_limit_exceeded", "not_found"]);
}

#[test]
fn every_payment_for_a_cancelled_event_is_refunded_in_every_order() {
    assert_exhausted(&CANCELLED_EVENT, 300_000, &["event_cancelled"]);
}
