//! Every bound of the engine, with its reason.

use std::time::Duration;

/// Most commands that wait for their turn: some seconds of work, and some ten megabytes. One more is
/// refused at once, which serves its sender better than a wait that ends in a refusal.
pub const QUEUE_MAX: usize = 16_384;

/// Longest wait of a command for its turn. One still queued then never runs: its sender is about to give
/// up, and a booking nobody knows of would hold tickets for nothing.
pub const TURN_WAIT_MAX: Duration = Duration::from_secs(5);

/// Longest wait for `booking:{id}` before a confirmation or cancellation goes on without it. The lock
/// spares the database repeated work; the database alone decides who wins.
pub const BOOKING_LOCK_WAIT_MAX: Duration = Duration::from_millis(250);

const _: () =
    assert!(BOOKING_LOCK_WAIT_MAX.as_millis() < TURN_WAIT_MAX.as_millis(), "a lock is only a part of a turn");
