//! Backoff for bookings that a chore cannot change, so that corrupt rows do not cost a failed batch in every
//! run.

use std::collections::HashMap;

use domain::{BookingId, EventId};

use crate::limit::{BACKOFF_BOOKINGS_MAX, BACKOFF_ROUNDS_MAX, EVENT_FAILURES_MAX};

/// The failures of a chore. It is only an optimization: a forgotten failure is tried again.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    bookings: HashMap<BookingId, BookingBackoff>,
    /// The results for the bookings of each event in this run.
    events: HashMap<EventId, EventTally>,
}

#[derive(Debug)]
struct BookingBackoff {
    failures: u32,
    runs_left: u32,
    /// True if the booking occurred in this run.
    is_seen: bool,
}

#[derive(Debug, Default)]
struct EventTally {
    failed: u32,
    succeeded: u32,
}

impl Backoff {
    /// Starts a run. Bookings that did not occur in the last run are removed: they have been changed
    /// otherwise.
    pub(super) fn begin_run(&mut self) {
        self.events.clear();
        self.bookings.retain(|_, entry| std::mem::take(&mut entry.is_seen));
        for entry in self.bookings.values_mut() {
            entry.runs_left = entry.runs_left.saturating_sub(1);
        }
    }

    /// True if the chore should try to change the booking in this run.
    pub(super) fn is_due(&mut self, event: EventId, booking: BookingId) -> bool {
        let entry = self.bookings.get_mut(&booking);
        let is_parked = entry.is_some_and(|entry| {
            entry.is_seen = true;
            entry.runs_left > 0
        });
        !is_parked && !self.is_at_fault(event)
    }

    /// True if so many bookings of an event have failed in this run, and none has succeeded, that the others
    /// are left for the next run.
    pub(super) fn is_at_fault(&self, event: EventId) -> bool {
        self.events
            .get(&event)
            .is_some_and(|tally| tally.succeeded == 0 && tally.failed >= EVENT_FAILURES_MAX)
    }

    /// Records that a booking was changed, or no longer needs a change.
    pub(super) fn record_success(&mut self, event: EventId, booking: BookingId) {
        self.bookings.remove(&booking);
        self.events.entry(event).or_default().succeeded += 1;
    }

    /// Records that a booking cannot be changed.
    pub(super) fn record_failure(&mut self, event: EventId, booking: BookingId) {
        self.events.entry(event).or_default().failed += 1;
        if self.bookings.len() >= BACKOFF_BOOKINGS_MAX && !self.bookings.contains_key(&booking) {
            return;
        }
        let new = BookingBackoff { failures: 0, runs_left: 0, is_seen: true };
        let entry = self.bookings.entry(booking).or_insert(new);
        entry.failures = entry.failures.saturating_add(1);
        entry.runs_left = 1_u32.checked_shl(entry.failures).unwrap_or(u32::MAX).min(BACKOFF_ROUNDS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(number: u8) -> (EventId, BookingId) {
        (EventId::from_bytes([number; 16]), BookingId::from_bytes([number; 16]))
    }

    #[test]
    fn retries_of_a_failing_booking_back_off_and_end_once_it_is_gone() {
        let mut backoff = Backoff::default();
        let (event, booking) = ids(1);
        let mut tried = Vec::new();
        for run in 0..300 {
            backoff.begin_run();
            if backoff.is_due(event, booking) {
                tried.push(run);
                backoff.record_failure(event, booking);
            }
        }
        assert_eq!(tried[..6], [0, 2, 6, 14, 30, 62]);
        assert!(tried.windows(2).all(|pair| pair[1] - pair[0] <= BACKOFF_ROUNDS_MAX), "{tried:?}");
        backoff.begin_run();
        backoff.begin_run();
        assert!(backoff.bookings.is_empty() && backoff.is_due(event, booking));
    }

    #[test]
    fn an_event_without_a_success_is_left_for_the_next_run() {
        let mut backoff = Backoff::default();
        let (event, _) = ids(1);
        let (other, booking) = ids(2);
        backoff.begin_run();
        for number in 0..EVENT_FAILURES_MAX {
            assert!(!backoff.is_at_fault(event), "{number}");
            backoff.record_failure(event, BookingId::from_bytes([100 + u8::try_from(number).unwrap(); 16]));
        }
        assert!(!backoff.is_due(event, booking) && backoff.is_due(other, booking));
        backoff.begin_run();
        assert!(backoff.is_due(event, booking));
        backoff.record_success(event, booking);
        for number in 0..=EVENT_FAILURES_MAX {
            backoff.record_failure(event, BookingId::from_bytes([200 + u8::try_from(number).unwrap(); 16]));
        }
        assert!(!backoff.is_at_fault(event), "one succeeded");
    }
}
