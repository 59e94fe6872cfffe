//! Long walks at random: whatever is asked in whatever order, the books are clean, and what was answered
//! can be read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use domain::{
    Action, Actor, Answer, Ask, Booking, BookingId, Command, EventId, EventPatch, EventStatus, NewEvent,
    TicketTypeId,
};

use super::Rig;
use super::luck::Luck;
use super::stage::{Stage, by, command, edit, expire, user, word};
use crate::Reply;

const SEEDS: [u64; 4] = [1, 20_260_726, 0xb0f0, u64::MAX];
const BATCHES: usize = 60;
const BATCH_LENGTH_MAX: usize = 12;
/// Batches between two audits.
const AUDIT_EVERY: usize = 12;
const USERS: [&str; 4] = ["a", "b", "c", "d"];
const PAYMENTS: [&str; 2] = ["t", "u"];

/// Every word that the histories must have heard; otherwise they prove less than they seem to.
const MUST_HEAR: [&str; 13] = [
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
    stage: Stage<'r>,
    luck: Luck,
    events: Vec<(EventId, Vec<TicketTypeId>)>,
    /// Every booking as it was last answered.
    answered: BTreeMap<BookingId, Arc<Booking>>,
    known: Vec<Arc<Booking>>,
    heard: BTreeSet<&'static str>,
}

pub(super) async fn histories_at_random_keep_the_books_clean(rig: &dyn Rig) {
    let mut history = History {
        stage: Stage::new(rig),
        luck: Luck(0),
        events: Vec::new(),
        answered: BTreeMap::new(),
        known: Vec::new(),
        heard: BTreeSet::new(),
    };
    for seed in SEEDS {
        history.luck = Luck(seed);
        history.live().await;
    }
    let missed: Vec<_> = MUST_HEAR.iter().filter(|word| !history.heard.contains(*word)).collect();
    assert!(missed.is_empty(), "never heard: {missed:?}");
    assert!(!history.heard.contains("failed"), "a command failed");
}

impl History<'_> {
    /// A few events, from their creation through many batches.
    async fn live(&mut self) {
        (self.events, self.known) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            self.open().await;
        }
        for round in 1..=BATCHES {
            let length = 1 + self.luck.below(BATCH_LENGTH_MAX);
            let commands: Vec<_> = (0..length).map(|_| self.any_command()).collect();
            let replies = self.stage.execute(commands).await;
            self.note(&replies);
            if self.luck.below(4) == 0 {
                let seconds = [1, 100, 300, 700][self.luck.below(4)];
                self.stage.rig.advance(Duration::from_secs(seconds)).await;
            }
            if round % AUDIT_EVERY == 0 {
                self.stage.clean().await;
                self.reads_agree().await;
            }
        }
    }

    async fn open(&mut self) {
        let limited = self.luck.below(2) == 0;
        let mut new = NewEvent {
            max_tickets_per_user: limited.then_some(3),
            max_tickets_per_booking: 5,
            ..self.stage.concert(6)
        };
        if self.luck.below(2) == 0 {
            new.ticket_types.push(self.stage.ticket_type(Some(3)));
            new.ticket_types.push(self.stage.ticket_type(None));
        }
        let kinds = new.ticket_types.iter().map(|kind| kind.id).collect();
        self.events.push((new.id, kinds));
        self.stage.create(new).await;
    }

    fn any_command(&mut self) -> Command {
        let (event, kinds) = self.luck.pick(&self.events).clone();
        if self.known.is_empty() || self.luck.below(5) < 2 {
            return self.any_order(event, &kinds);
        }
        let booking = self.luck.pick(&self.known).clone();
        match self.luck.below(12) {
            0..=3 => self.any_confirmation(&booking),
            4 | 5 => self.stage.cancel(&booking),
            6 => by(Actor::User(user(USERS[self.luck.below(4)])), self.stage.cancel(&booking).action),
            7 | 8 => expire(&booking),
            _ => edit(event, self.any_patch()),
        }
    }

    fn any_order(&mut self, event: EventId, kinds: &[TicketTypeId]) -> Command {
        let name = *self.luck.pick(&USERS);
        let mut quantity = || u32::try_from(self.luck.below(3) + 1).unwrap_or(1);
        let ask = match kinds {
            [_] => Ask::Quantity(quantity()),
            [first, rest @ ..] => {
                let mut wanted = vec![(*first, quantity())];
                wanted.extend(rest.iter().map(|kind| (*kind, quantity())));
                wanted.remove(self.luck.below(3));
                Ask::Items(wanted)
            }
            [] => Ask::Quantity(1),
        };
        self.stage.order(event, name, ask)
    }

    fn any_confirmation(&mut self, booking: &Booking) -> Command {
        let transaction = *self.luck.pick(&PAYMENTS);
        let mut command = self.stage.confirm(booking, transaction);
        if let (Action::Confirm(paid), 0) = (&mut command.action, self.luck.below(10)) {
            paid.amount = Some(super::stage::eur(1));
        }
        command
    }

    fn any_patch(&mut self) -> EventPatch {
        let capacity = Some(u32::try_from(2 + self.luck.below(7)).unwrap_or(2));
        let status = |status| EventPatch { status: Some(status), ..EventPatch::default() };
        match self.luck.below(16) {
            0..=5 => EventPatch { capacity, ..EventPatch::default() },
            6 => EventPatch { capacity: Some(0), ..EventPatch::default() },
            7 => EventPatch { if_match: Some(1), capacity, ..EventPatch::default() },
            8 | 9 => status(EventStatus::Paused),
            10 => EventPatch { max_tickets_per_user: Some(None), ..EventPatch::default() },
            11 if self.luck.below(4) == 0 => status(EventStatus::Cancelled),
            _ => status(EventStatus::OnSale),
        }
    }

    fn note(&mut self, replies: &[Reply]) {
        for reply in replies {
            self.heard.insert(word(reply));
            if let Reply::Answered(Answer::Booking(booking)) = reply {
                if booking.version == 1 {
                    self.known.push(booking.clone());
                }
                self.answered.insert(booking.id, booking.clone());
            }
        }
    }

    /// What was answered stands, unless the booking has gone on since.
    async fn reads_agree(&self) {
        for (id, answered) in &self.answered {
            let mut read = self.stage.booking(*id).await;
            assert!(read.version >= answered.version, "{id} went back");
            if read.version == answered.version {
                read.hold_expires_at = answered.hold_expires_at;
                assert_eq!(read, **answered);
            }
        }
        for (event, _) in &self.events {
            let ledger = self.stage.ledger(*event).await;
            let seq = self.stage.event(*event).await.stock.seq;
            assert_eq!(
                ledger.iter().map(|entry| entry.seq).collect::<Vec<_>>(),
                (1..=seq).collect::<Vec<_>>()
            );
        }
        let ghost = EventId::from_bytes([0xee; 16]);
        let unknown = self.stage.run(command(self.stage.book(ghost, "a", 1).action)).await;
        assert_eq!(word(&unknown), "not_found");
    }
}
