//! Long random histories: after any commands in any order the audit is clean, and reads agree with the
//! replies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use domain::{
    Action, Actor, Answer, Booking, BookingId, Command, EventId, EventPatch, EventStatus, NewEvent,
    TicketSelection, TicketTypeId,
};

use super::Harness;
use super::fixture::{Fixture, command, command_by, edit, expire, outcome_code, user};
use crate::Reply;

const SEEDS: [u64; 4] = [1, 20_260_726, 0xb0f0, u64::MAX];
const BATCHES: usize = 60;
const BATCH_LENGTH_MAX: usize = 12;
/// Batches between two audits.
const AUDIT_EVERY: usize = 12;
const USERS: [&str; 4] = ["a", "b", "c", "d"];
const PAYMENTS: [&str; 2] = ["t", "u"];

/// Every outcome code that the histories must contain, so that they cover these cases.
const REQUIRED_OUTCOMES: [&str; 13] = [
    "ok",
    "sold_out",
    "insufficient_availability",
    "booking_limit_exceeded",
    "hold_expired",
    "invalid_state",
    "not_found",
    "event_paused",
    "event_cancelled",
    "capacity_in_use",
    "validation_failed",
    "amount_mismatch",
    "version_mismatch",
];

struct History<'r> {
    fixture: Fixture<'r>,
    rng: fastrand::Rng,
    events: Vec<(EventId, Vec<TicketTypeId>)>,
    /// The last replied state of every booking.
    replied: BTreeMap<BookingId, Arc<Booking>>,
    known: Vec<Arc<Booking>>,
    outcomes: BTreeSet<&'static str>,
}

pub(super) async fn random_histories_pass_the_audit(harness: &dyn Harness) {
    let mut history = History {
        fixture: Fixture::new(harness),
        rng: fastrand::Rng::with_seed(0),
        events: Vec::new(),
        replied: BTreeMap::new(),
        known: Vec::new(),
        outcomes: BTreeSet::new(),
    };
    for seed in SEEDS {
        history.rng = fastrand::Rng::with_seed(seed);
        history.run().await;
    }
    let missed: Vec<_> = REQUIRED_OUTCOMES.iter().filter(|code| !history.outcomes.contains(*code)).collect();
    assert!(missed.is_empty(), "outcomes that did not occur: {missed:?}");
    assert!(!history.outcomes.contains("failed"), "a command failed");
}

impl History<'_> {
    /// Creates a few events and executes many batches on them.
    async fn run(&mut self) {
        (self.events, self.known) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            self.create_event().await;
        }
        for round in 1..=BATCHES {
            let length = 1 + self.rng.usize(..BATCH_LENGTH_MAX);
            let commands: Vec<_> = (0..length).map(|_| self.any_command()).collect();
            let replies = self.fixture.execute(commands).await;
            self.record(&replies);
            if self.rng.usize(..4) == 0 {
                let seconds = [1, 100, 300, 700][self.rng.usize(..4)];
                self.fixture.harness.advance(Duration::from_secs(seconds)).await;
            }
            if round % AUDIT_EVERY == 0 {
                self.fixture.assert_audit_clean().await;
                self.assert_reads_agree().await;
            }
        }
    }

    async fn create_event(&mut self) {
        let limited = self.rng.usize(..2) == 0;
        let mut new = NewEvent {
            max_tickets_per_user: limited.then_some(3),
            max_tickets_per_booking: 5,
            ..self.fixture.new_event(6)
        };
        if self.rng.usize(..2) == 0 {
            new.ticket_types.push(self.fixture.ticket_type(Some(3)));
            new.ticket_types.push(self.fixture.ticket_type(None));
        }
        let kinds = new.ticket_types.iter().map(|kind| kind.id).collect();
        self.events.push((new.id, kinds));
        self.fixture.create(new).await;
    }

    fn any_command(&mut self) -> Command {
        let (event, kinds) = self.rng.choice(&self.events).expect("events").clone();
        if self.known.is_empty() || self.rng.usize(..5) < 2 {
            return self.any_order(event, &kinds);
        }
        let booking = self.rng.choice(&self.known).expect("bookings").clone();
        match self.rng.usize(..12) {
            0..=3 => self.any_confirmation(&booking),
            4 | 5 => self.fixture.cancel(&booking),
            6 => command_by(
                Actor::User(user(USERS[self.rng.usize(..4)])),
                self.fixture.cancel(&booking).action,
            ),
            7 | 8 => expire(&booking),
            _ => edit(event, self.any_patch()),
        }
    }

    fn any_order(&mut self, event: EventId, kinds: &[TicketTypeId]) -> Command {
        let name = self.rng.choice(USERS).expect("users");
        let mut quantity = || u32::try_from(self.rng.usize(..3) + 1).unwrap_or(1);
        let selection = match kinds {
            [_] => TicketSelection::Quantity(quantity()),
            [first, rest @ ..] => {
                let mut wanted = vec![(*first, quantity())];
                wanted.extend(rest.iter().map(|kind| (*kind, quantity())));
                wanted.remove(self.rng.usize(..3));
                TicketSelection::Items(wanted)
            }
            [] => TicketSelection::Quantity(1),
        };
        self.fixture.order(event, name, selection)
    }

    fn any_confirmation(&mut self, booking: &Booking) -> Command {
        let transaction = self.rng.choice(PAYMENTS).expect("payments");
        let mut command = self.fixture.confirm(booking, transaction);
        if let (Action::Confirm(confirmation), 0) = (&mut command.action, self.rng.usize(..10)) {
            confirmation.payment.amount = Some(super::fixture::eur(1));
        }
        command
    }

    fn any_patch(&mut self) -> EventPatch {
        let capacity = Some(u32::try_from(2 + self.rng.usize(..7)).unwrap_or(2));
        let status = |status| EventPatch { status: Some(status), ..EventPatch::default() };
        match self.rng.usize(..16) {
            0..=5 => EventPatch { capacity, ..EventPatch::default() },
            6 => EventPatch { capacity: Some(0), ..EventPatch::default() },
            7 => EventPatch { if_match: Some(1), capacity, ..EventPatch::default() },
            8 | 9 => status(EventStatus::Paused),
            10 => EventPatch { max_tickets_per_user: Some(None), ..EventPatch::default() },
            11 if self.rng.usize(..4) == 0 => status(EventStatus::Cancelled),
            _ => status(EventStatus::OnSale),
        }
    }

    fn record(&mut self, replies: &[Reply]) {
        for reply in replies {
            self.outcomes.insert(outcome_code(reply));
            if let Some(Answer::Booking(booking)) = reply.answer() {
                if booking.version == 1 {
                    self.known.push(booking.clone());
                }
                self.replied.insert(booking.id, booking.clone());
            }
        }
    }

    /// Asserts that reads return the replied states, unless a booking has changed since.
    async fn assert_reads_agree(&self) {
        for (id, replied) in &self.replied {
            let mut read = self.fixture.booking(*id).await;
            assert!(read.version >= replied.version, "{id} has an older version than replied");
            if read.version == replied.version {
                read.hold_expires_at = replied.hold_expires_at;
                assert_eq!(read, **replied);
            }
        }
        for (event, _) in &self.events {
            let ledger = self.fixture.ledger(*event).await;
            let seq = self.fixture.event(*event).await.inventory.seq;
            assert_eq!(
                ledger.iter().map(|entry| entry.seq).collect::<Vec<_>>(),
                (1..=seq).collect::<Vec<_>>()
            );
        }
        let unknown_event = EventId::from_bytes([0xee; 16]);
        let unknown = self.fixture.run(command(self.fixture.book(unknown_event, "a", 1).action)).await;
        assert_eq!(outcome_code(&unknown), "not_found");
    }
}
