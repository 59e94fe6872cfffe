//! A miniature store: it loads a [`Snapshot`], calls [`decide`], frees overdue holds if required, and writes
//! the change. It keeps all entries, so that a test can replay them.
//!
//! It must not contain any booking rule: its assertions are those that the constraints of a database would
//! enforce.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use domain::{
    Action, Actor, Answer, Booking, BookingId, Cancellation, CapturedPayment, Change, Command, Confirmation,
    Decision, Entry, Event, EventId, EventPatch, HoldScope, Money, NewEvent, NewTicketType, Order, Refund,
    RefundId, RefundOutcome, RefundStatus, Settlement, Snapshot, TicketSelection, TicketTypeId, Timestamp,
    TransactionId, UserId, decide,
};

/// One event and everything that belongs to it.
#[derive(Clone, Debug)]
pub(crate) struct World {
    /// The current time of the clock; tests set it, also backwards.
    pub(crate) now: Timestamp,
    pub(crate) event: Option<Event>,
    pub(crate) bookings: BTreeMap<BookingId, Arc<Booking>>,
    pub(crate) refunds: BTreeMap<(BookingId, TransactionId), Refund>,
    /// The counts of tickets per user that the rules have written.
    pub(crate) user_tickets: BTreeMap<UserId, u32>,
    pub(crate) ledger: Vec<Entry>,
    /// Payments that were captured: confirmations that were not refused without being recorded.
    pub(crate) captured: BTreeSet<(BookingId, TransactionId)>,
    /// The holds that the last command freed.
    pub(crate) freed: Vec<BookingId>,
    ids: u8,
}

pub(crate) const EVENT: u8 = 1;

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The instant `micros` microseconds after `from`, or before it if negative.
pub(crate) fn shifted(from: Timestamp, micros: i64) -> Timestamp {
    Timestamp::from_micros(from.micros() + micros).unwrap()
}

pub(crate) fn eur(amount: i64) -> Money {
    Money::new(amount, "EUR".parse().unwrap()).unwrap()
}

pub(crate) fn user(name: &str) -> UserId {
    name.parse().unwrap()
}

pub(crate) fn payment(name: &str) -> TransactionId {
    name.parse().unwrap()
}

pub(crate) fn service() -> Actor {
    Actor::Service(user("gateway"))
}

pub(crate) fn admin() -> Actor {
    Actor::Admin(user("organiser"))
}

/// The id of the ticket type at an index of the event.
pub(crate) fn ticket_type(index: u8) -> TicketTypeId {
    TicketTypeId::from_bytes([index; 16])
}

/// A new ticket type, with or without a capacity of its own.
pub(crate) fn new_ticket_type(index: u8, price: i64, capacity: Option<u32>) -> NewTicketType {
    let name = format!("type {index}").parse().unwrap();
    NewTicketType { id: ticket_type(index), name, price: eur(price), capacity }
}

/// An event of ten tickets at 45.00 EUR, without a limit per user, on sale immediately.
pub(crate) fn new_event() -> NewEvent {
    NewEvent {
        single_price: false,
        id: EventId::from_bytes([EVENT; 16]),
        name: "Concert".parse().unwrap(),
        venue: "Hall".parse().unwrap(),
        starts_at: at("2030-06-01T18:00:00Z"),
        time_zone: None,
        capacity: 10,
        ticket_types: vec![new_ticket_type(0, 4500, None)],
        sales_start_at: None,
        sales_end_at: None,
        hold_seconds: 3600,
        cancel_cutoff_seconds: 86_400,
        max_tickets_per_booking: 10,
        max_tickets_per_user: None,
    }
}

/// The code of the outcome: `ok`, or the code of the refusal.
pub(crate) fn outcome_code(answer: &Answer) -> &'static str {
    match answer {
        Answer::Booking(_) | Answer::Event(_) | Answer::Refund(_) => "ok",
        Answer::Refused(refusal) => refusal.code(),
    }
}

/// The refund that a refusal contains.
pub(crate) fn named_refund(answer: &Answer) -> Option<&Refund> {
    match answer {
        Answer::Booking(_) | Answer::Event(_) | Answer::Refund(_) => None,
        Answer::Refused(refusal) => refusal.refund(),
    }
}

impl World {
    /// A world without an event, on 1 January 2030.
    pub(crate) fn empty() -> Self {
        Self {
            now: at("2030-01-01T00:00:00Z"),
            event: None,
            bookings: BTreeMap::new(),
            refunds: BTreeMap::new(),
            user_tickets: BTreeMap::new(),
            ledger: Vec::new(),
            captured: BTreeSet::new(),
            freed: Vec::new(),
            ids: 0,
        }
    }

    /// A world in which the event was just created.
    pub(crate) fn selling(new: NewEvent) -> Self {
        let mut world = Self::empty();
        assert_eq!(outcome_code(&world.create(new)), "ok");
        world
    }

    pub(crate) fn event(&self) -> &Event {
        self.event.as_ref().unwrap()
    }

    pub(crate) fn booking(&self, id: BookingId) -> &Booking {
        &self.bookings[&id]
    }

    pub(crate) fn wait(&mut self, seconds: i64) {
        self.now = shifted(self.now, seconds * 1_000_000);
    }

    pub(crate) fn create(&mut self, new: NewEvent) -> Answer {
        self.run(admin(), Action::CreateEvent(Box::new(new)))
    }

    pub(crate) fn edit(&mut self, patch: EventPatch) -> Answer {
        let event_id = EventId::from_bytes([EVENT; 16]);
        self.run(admin(), Action::UpdateEvent { event_id, patch: Box::new(patch) })
    }

    pub(crate) fn order(
        &mut self,
        name: &str,
        selection: TicketSelection,
        expected_total: Option<Money>,
    ) -> Answer {
        let order = Order {
            expected_total,
            ..Order::new(EventId::from_bytes([EVENT; 16]), self.next_booking(), user(name), selection)
        };
        self.ids += 1;
        self.run(Actor::User(user(name)), Action::Book(Box::new(order)))
    }

    /// Books one ticket with an external reference.
    pub(crate) fn book_with_reference(&mut self, name: &str, reference: &str) -> Answer {
        let (event, booking) = (EventId::from_bytes([EVENT; 16]), self.next_booking());
        let order = Order::new(event, booking, user(name), TicketSelection::Quantity(1));
        self.ids += 1;
        let external_ref = Some(reference.parse().unwrap());
        self.run(Actor::User(user(name)), Action::Book(Box::new(Order { external_ref, ..order })))
    }

    pub(crate) fn book(&mut self, name: &str, quantity: u32) -> Answer {
        self.order(name, TicketSelection::Quantity(quantity), None)
    }

    /// The id that the next order will use. Ids sort by their creation, as real ones do.
    pub(crate) fn next_booking(&self) -> BookingId {
        BookingId::from_bytes([self.ids + 1; 16])
    }

    /// Books, and panics on a refusal.
    pub(crate) fn must_book(&mut self, name: &str, quantity: u32) -> BookingId {
        match self.book(name, quantity) {
            Answer::Booking(booking) => booking.id,
            other => panic!("{name} could not book {quantity}: {other:?}"),
        }
    }

    pub(crate) fn confirm(&mut self, id: BookingId, transaction: &str, amount: Option<Money>) -> Answer {
        let confirmation = Confirmation {
            event_id: EventId::from_bytes([EVENT; 16]),
            booking_id: id,
            payment: CapturedPayment { transaction: payment(transaction), amount },
            refund_id: self.next_refund(),
        };
        self.run(service(), Action::Confirm(Box::new(confirmation)))
    }

    pub(crate) fn pay(&mut self, id: BookingId, transaction: &str) -> Answer {
        self.confirm(id, transaction, None)
    }

    /// Books and pays, and panics on a refusal.
    pub(crate) fn book_and_pay(&mut self, name: &str, quantity: u32, transaction: &str) -> BookingId {
        let id = self.must_book(name, quantity);
        assert_eq!(outcome_code(&self.pay(id, transaction)), "ok");
        id
    }

    /// Books several ticket types and pays, and panics on a refusal.
    pub(crate) fn book_and_pay_items(&mut self, name: &str, selection: TicketSelection) -> BookingId {
        let id = self.next_booking();
        assert_eq!(outcome_code(&self.order(name, selection, None)), "ok");
        assert_eq!(outcome_code(&self.pay(id, "other")), "ok");
        id
    }

    pub(crate) fn cancel(&mut self, actor: Actor, id: BookingId) -> Answer {
        let cancellation = Cancellation {
            event_id: EventId::from_bytes([EVENT; 16]),
            booking_id: id,
            reason: Some("changed plans".parse().unwrap()),
            refund_id: self.next_refund(),
        };
        self.run(actor, Action::Cancel(Box::new(cancellation)))
    }

    pub(crate) fn expire(&mut self, id: BookingId) -> Answer {
        self.run(Actor::System, Action::Expire { event_id: EventId::from_bytes([EVENT; 16]), booking_id: id })
    }

    /// Reports the outcome of the refund of one captured payment.
    pub(crate) fn settle(
        &mut self,
        id: BookingId,
        transaction: &str,
        succeeded: bool,
        reference: &str,
    ) -> Answer {
        let settlement = Settlement {
            event_id: EventId::from_bytes([EVENT; 16]),
            booking_id: id,
            transaction: payment(transaction),
            outcome: RefundOutcome { succeeded, provider_reference: reference.parse().unwrap() },
        };
        self.run(service(), Action::Settle(Box::new(settlement)))
    }

    /// The refund of a captured payment. Panics if there is none.
    pub(crate) fn refund(&self, id: BookingId, transaction: &str) -> &Refund {
        &self.refunds[&(id, payment(transaction))]
    }

    /// Executes one command, as one transaction would.
    pub(crate) fn run(&mut self, actor: Actor, action: Action) -> Answer {
        self.freed.clear();
        let command = Command { actor, request: "req-1".parse().unwrap(), trace: None, action };
        let answer = self.execute(&command);
        if let Action::Confirm(confirmation) = &command.action
            && !matches!(outcome_code(&answer), "not_found" | "amount_mismatch")
        {
            self.captured.insert((confirmation.booking_id, confirmation.payment.transaction.clone()));
        }
        answer
    }

    fn next_refund(&self) -> RefundId {
        RefundId::from_bytes(u128::try_from(self.refunds.len() + 1).unwrap().to_be_bytes())
    }

    fn execute(&mut self, command: &Command) -> Answer {
        let mut exhausted_scopes = Vec::new();
        loop {
            match self.decide(command, &exhausted_scopes) {
                Decision::Change(change) => return self.apply(*change),
                Decision::Answer(answer) => return answer,
                Decision::FreeOverdue(shortage) => {
                    assert!(shortage.tickets > 0, "holds requested although no ticket is missing");
                    assert!(
                        !exhausted_scopes.contains(&shortage.scope),
                        "holds of an exhausted scope requested again"
                    );
                    if !self.free_overdue(&shortage.scope, shortage.tickets) {
                        exhausted_scopes.push(shortage.scope);
                    }
                }
            }
        }
    }

    fn decide(&self, command: &Command, exhausted_scopes: &[HoldScope]) -> Decision {
        let event = self.event.as_ref().filter(|event| event.id == command.event_id());
        let booking = command.booking_id().and_then(|id| self.bookings.get(&id));
        let refund = command.captured().and_then(|payment| self.refunds.get(&payment));
        let owner = command.booked_user().or_else(|| booking.map(|booking| &booking.user));
        let limited = event.is_some_and(|event| event.details.max_tickets_per_user.is_some());
        let user_tickets = owner.filter(|_| limited).and_then(|owner| self.user_tickets.get(owner)).copied();
        let reference = command.external_ref();
        let is_external_ref_in_use = reference.is_some()
            && self.bookings.values().any(|booking| booking.external_ref.as_ref() == reference);
        let user_tickets = user_tickets.unwrap_or(0);
        let snapshot =
            Snapshot { event, booking, refund, user_tickets, is_external_ref_in_use, exhausted_scopes };
        decide(&snapshot, command, self.now).unwrap()
    }

    /// Frees overdue holds of a scope, oldest first, until enough tickets are available. Returns true if
    /// there were any.
    fn free_overdue(&mut self, scope: &HoldScope, tickets: u32) -> bool {
        let now = self.now;
        let helps = |booking: &Booking| match scope {
            HoldScope::Event => booking.items.quantity(),
            HoldScope::User(user) if booking.user == *user => booking.items.quantity(),
            HoldScope::User(_) => 0,
            HoldScope::TicketType(id) => {
                booking.items.iter().filter(|item| item.ticket_type == *id).map(|item| item.quantity).sum()
            }
        };
        let overdue = self.bookings.values().filter(|booking| booking.overdue(now));
        let mut due: Vec<_> =
            overdue.map(|booking| (booking.hold_expires_at, booking.id, helps(booking))).collect();
        due.retain(|(_, _, help)| *help > 0);
        due.sort_unstable();
        let mut missing = tickets;
        for (_, booking_id, help) in &due {
            if missing == 0 {
                break;
            }
            let event_id = self.event().id;
            let action = Action::Expire { event_id, booking_id: *booking_id };
            let command =
                Command { actor: Actor::System, request: "sweep".parse().unwrap(), trace: None, action };
            assert_eq!(outcome_code(&self.execute(&command)), "ok", "an overdue hold can always be freed");
            self.freed.push(*booking_id);
            missing = missing.saturating_sub(*help);
        }
        !due.is_empty()
    }

    /// Writes a change, and panics if the constraints of a database would refuse it.
    fn apply(&mut self, change: Change) -> Answer {
        assert!(!change.entries.is_empty(), "a change without a ledger entry");
        if let Some(booking) = change.booking {
            let before = self.bookings.insert(booking.id, booking.clone());
            let version = before.as_ref().map_or(0, |before| before.version);
            assert_eq!(booking.version, version + 1, "a version was skipped");
            if let Some(before) = before {
                let fixed = Booking {
                    state: booking.state.clone(),
                    version: booking.version,
                    last_seq: booking.last_seq,
                    updated_at: booking.updated_at,
                    ..Booking::clone(&before)
                };
                assert_eq!(*booking, fixed, "the fixed part of a booking changed");
            }
        }
        if let Some(refund) = change.refund {
            let open = refund.status == RefundStatus::Requested;
            assert_eq!(
                open,
                refund.settled_at.is_none(),
                "a refund is settled exactly if it has a time of settlement"
            );
            let payment = (refund.booking_id, refund.transaction.clone());
            if let Some(before) = self.refunds.insert(payment, refund.clone()) {
                let fixed = Refund {
                    status: refund.status,
                    provider_reference: refund.provider_reference.clone(),
                    settled_at: refund.settled_at,
                    ..before
                };
                assert_eq!(refund, fixed, "the fixed part of a refund changed, or there is a second refund");
            }
        }
        self.user_tickets.extend(change.user_tickets);
        match (&mut self.event, change.details) {
            (Some(event), details) => {
                event.inventory = change.inventory;
                event.details = details.unwrap_or_else(|| event.details.clone());
            }
            (slot @ None, details) => {
                let id = change.entries[0].event_id;
                *slot = Some(Event { id, details: details.unwrap(), inventory: change.inventory });
            }
        }
        self.ledger.extend(change.entries);
        change.answer
    }
}
