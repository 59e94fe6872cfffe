//! Bookings that a chore cannot change: tried ever more rarely, so that corrupt rows do not cost failed batches in every
//! run.

use std::collections::HashMap;

use domain::{BookingId, EventId};

use crate::limit::{EVENT_FAILURES_MAX, PARKED_MAX, PARKED_ROUNDS_MAX};

/// What a chore remembers of its failures. A hint: what is forgotten is tried again.
#[derive(Debug, Default)]
pub(super) struct Parked {
    bookings: HashMap<BookingId, Parking>,
    /// What became of the bookings of each event in this run, where some failed.
    events: HashMap<EventId, Tally>,
}

#[derive(Debug)]
struct Parking {
    failures: u32,
    runs_left: u32,
    /// Whether this run has met it.
    is_met: bool,
}

#[derive(Debug, Default)]
struct Tally {
    failed: u32,
    done: u32,
}

impl Parked {
    /// Begins a run. Bookings that the last one has not met are forgotten: others have changed them.
    pub(super) fn begin_run(&mut self) {
        self.events.clear();
        self.bookings.retain(|_, parking| std::mem::take(&mut parking.is_met));
        for parking in self.bookings.values_mut() {
            parking.runs_left = parking.runs_left.saturating_sub(1);
        }
    }

    /// Whether a booking is to be tried in this run.
    pub(super) fn is_due(&mut self, event: EventId, booking: BookingId) -> bool {
        let parking = self.bookings.get_mut(&booking);
        let is_parked = parking.is_some_and(|parking| {
            parking.is_met = true;
            parking.runs_left > 0
        });
        !is_parked && !self.is_at_fault(event)
    }

    /// Whether so many bookings of an event have failed in this run, and none succeeded, that the rest is left for the
    /// next one.
    pub(super) fn is_at_fault(&self, event: EventId) -> bool {
        self.events.get(&event).is_some_and(|tally| tally.done == 0 && tally.failed >= EVENT_FAILURES_MAX)
    }

    /// Notes that a booking was changed, or needs no change any more.
    pub(super) fn done(&mut self, event: EventId, booking: BookingId) {
        self.bookings.remove(&booking);
        self.events.entry(event).or_default().done += 1;
    }

    /// Notes that a booking cannot be changed.
    pub(super) fn failed(&mut self, event: EventId, booking: BookingId) {
        self.events.entry(event).or_default().failed += 1;
        if self.bookings.len() >= PARKED_MAX && !self.bookings.contains_key(&booking) {
            return;
        }
        let new = Parking { failures: 0, runs_left: 0, is_met: true };
        let parking = self.bookings.entry(booking).or_insert(new);
        parking.failures = parking.failures.saturating_add(1);
        parking.runs_left = 1_u32.checked_shl(parking.failures).unwrap_or(u32::MAX).min(PARKED_ROUNDS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(number: u8) -> (EventId, BookingId) {
        (EventId::from_bytes([number; 16]), BookingId::from_bytes([number; 16]))
    }

    #[test]
    fn a_booking_that_fails_is_tried_ever_more_rarely_and_forgotten_once_it_is_gone() {
        let (mut parked, (event, booking)) = (Parked::default(), ids(1));
        let mut tried = Vec::new();
        for run in 0..300 {
            parked.begin_run();
            if parked.is_due(event, booking) {
                tried.push(run);
                parked.failed(event, booking);
            }
        }
        assert_eq!(tried[..6], [0, 2, 6, 14, 30, 62]);
        assert!(tried.windows(2).all(|pair| pair[1] - pair[0] <= PARKED_ROUNDS_MAX), "{tried:?}");
        parked.begin_run();
        parked.begin_run();
        assert!(parked.bookings.is_empty() && parked.is_due(event, booking));
    }

    #[test]
    fn an_event_of_which_nothing_succeeds_is_left_for_the_next_run() {
        let (mut parked, (event, _), (other, booking)) = (Parked::default(), ids(1), ids(2));
        parked.begin_run();
        for number in 0..EVENT_FAILURES_MAX {
            assert!(!parked.is_at_fault(event), "{number}");
            parked.failed(event, BookingId::from_bytes([100 + u8::try_from(number).unwrap(); 16]));
        }
        assert!(!parked.is_due(event, booking) && parked.is_due(other, booking));
        parked.begin_run();
        assert!(parked.is_due(event, booking));
        parked.done(event, booking);
        for number in 0..=EVENT_FAILURES_MAX {
            parked.failed(event, BookingId::from_bytes([200 + u8::try_from(number).unwrap(); 16]));
        }
        assert!(!parked.is_at_fault(event), "one succeeded");
    }
}
