//! The fixture of the cases: a store, new ids, the usual commands, and reads of the results. The tests of a
//! single store use it, too.

#![expect(clippy::missing_panics_doc, reason = "test code panics if a test fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use domain::{
    Action, Actor, Answer, Booking, BookingId, BookingStatus, Cancellation, CapturedPayment, Command,
    Confirmation, Entry, Event, EventId, EventPatch, Money, NewEvent, NewTicketType, Order, Refund, RefundId,
    Refusal, TicketSelection, TicketTypeId, Timestamp, TransactionId, UserId,
};

use super::Harness;
use crate::{CommandOutput, Reply, Store};

/// The hold time of the events of [`Fixture::new_event`].
pub const HOLD: Duration = Duration::from_mins(10);

/// A store under test and a generator of ids, for one case.
pub struct Fixture<'r> {
    /// The harness of the store.
    pub harness: &'r dyn Harness,
    /// The store under test.
    pub store: Arc<dyn Store>,
    ids: AtomicU64,
}

/// Parses an instant in RFC 3339.
pub fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

/// An amount of euro-cents.
pub fn eur(amount: i64) -> Money {
    Money::new(amount, "EUR".parse().expect("a currency")).expect("an amount")
}

/// The user with this id.
pub fn user(name: &str) -> UserId {
    name.parse().expect("a user")
}

/// The captured payment with this id.
pub fn payment(name: &str) -> TransactionId {
    name.parse().expect("a transaction")
}

/// A command of a service, which may do anything to any booking.
pub fn command(action: Action) -> Command {
    let request = "req-suite".parse().expect("a request");
    Command { actor: Actor::Service(user("suite")), request, trace: None, action }
}

/// A command of this actor.
pub fn command_by(actor: Actor, action: Action) -> Command {
    Command { actor, ..command(action) }
}

/// A confirmation without an amount. A refund of the payment would get the id `refund_id`.
pub fn confirm_with(booking: &Booking, transaction: &str, refund_id: RefundId) -> Command {
    let (event_id, booking_id) = (booking.event_id, booking.id);
    let payment = CapturedPayment { transaction: payment(transaction), amount: None };
    let confirmation = Confirmation { event_id, booking_id, payment, refund_id };
    command(Action::Confirm(Box::new(confirmation)))
}

/// The command of the sweeper: the expiry of a hold.
pub fn expire(booking: &Booking) -> Command {
    let action = Action::Expire { event_id: booking.event_id, booking_id: booking.id };
    command_by(Actor::System, action)
}

/// An edit of an event.
pub fn edit(event_id: EventId, patch: EventPatch) -> Command {
    command(Action::UpdateEvent { event_id, patch: Box::new(patch) })
}

/// A short code of a reply: `ok`, the code of the refusal, `stored`, `replayed`, `key reused`, `requeue`,
/// `busy` or `failed`.
pub fn outcome_code(reply: &Reply) -> &'static str {
    match reply {
        Reply::Decided(CommandOutput::Fresh(Answer::Refused(refusal))) => refusal.code(),
        Reply::Decided(CommandOutput::Fresh(_)) => "ok",
        Reply::Decided(CommandOutput::Stored { replayed: false, .. }) => "stored",
        Reply::Decided(CommandOutput::Stored { replayed: true, .. }) => "replayed",
        Reply::KeyReused => "key reused",
        Reply::Requeue => "requeue",
        Reply::Busy => "busy",
        Reply::Failed(_) => "failed",
    }
}

/// The [`outcome_code`] of each reply.
pub fn outcome_codes(replies: &[Reply]) -> Vec<&'static str> {
    replies.iter().map(outcome_code).collect()
}

/// The booking in a reply.
pub fn expect_booking(reply: &Reply) -> Arc<Booking> {
    match reply.answer() {
        Some(Answer::Booking(booking)) => booking.clone(),
        _ => panic!("a booking was expected: {reply:?}"),
    }
}

/// The refund in a refusal.
pub fn expect_refund(reply: &Reply) -> Refund {
    let refund = match reply.answer() {
        Some(Answer::Refused(
            Refusal::EventCancelled { refund, .. } | Refusal::InvalidState { refund, .. },
        )) => refund.clone(),
        Some(Answer::Refused(Refusal::HoldExpired { refund, .. })) => Some(refund.clone()),
        _ => None,
    };
    *refund.unwrap_or_else(|| panic!("a refusal with a refund was expected: {reply:?}"))
}

impl<'r> Fixture<'r> {
    /// Creates the fixture of a case.
    pub fn new(harness: &'r dyn Harness) -> Self {
        Self { harness, store: harness.store(), ids: AtomicU64::new(0) }
    }

    /// A new id, greater than all before it.
    pub fn id(&self) -> [u8; 16] {
        let number = self.ids.fetch_add(1, Ordering::Relaxed) + 1;
        u128::from(number).to_be_bytes()
    }

    /// A new refund id.
    pub fn refund_id(&self) -> RefundId {
        RefundId::from_bytes(self.id())
    }

    /// A new ticket type at 45.00 EUR.
    pub fn ticket_type(&self, capacity: Option<u32>) -> NewTicketType {
        let (id, name) = (TicketTypeId::from_bytes(self.id()), "Seat".parse().expect("a name"));
        NewTicketType { id, name, price: eur(4_500), capacity }
    }

    /// A new event in the far future with one ticket type, on sale, without a limit per user.
    pub fn new_event(&self, capacity: u32) -> NewEvent {
        NewEvent {
            id: EventId::from_bytes(self.id()),
            name: "Concert".parse().expect("a name"),
            venue: "Hall".parse().expect("a venue"),
            starts_at: at("2199-06-01T18:00:00Z"),
            time_zone: None,
            capacity,
            ticket_types: vec![self.ticket_type(None)],
            single_price: false,
            sales_start_at: None,
            sales_end_at: None,
            hold_seconds: u32::try_from(HOLD.as_secs()).expect("a short hold"),
            cancel_cutoff_seconds: 86_400,
            max_tickets_per_booking: 10_000,
            max_tickets_per_user: None,
        }
    }

    /// An order for a selection of tickets.
    pub fn order(&self, event_id: EventId, name: &str, selection: TicketSelection) -> Command {
        let booking_id = BookingId::from_bytes(self.id());
        let order = Order::new(event_id, booking_id, user(name), selection);
        command(Action::Book(Box::new(order)))
    }

    /// An order for `quantity` tickets of the only ticket type.
    pub fn book(&self, event_id: EventId, name: &str, quantity: u32) -> Command {
        self.order(event_id, name, TicketSelection::Quantity(quantity))
    }

    /// A confirmation without an amount.
    pub fn confirm(&self, booking: &Booking, transaction: &str) -> Command {
        confirm_with(booking, transaction, self.refund_id())
    }

    /// A cancellation without a reason.
    pub fn cancel(&self, booking: &Booking) -> Command {
        let (event_id, booking_id, refund_id) = (booking.event_id, booking.id, self.refund_id());
        let cancellation = Cancellation { event_id, booking_id, reason: None, refund_id };
        command(Action::Cancel(Box::new(cancellation)))
    }

    /// Executes a batch.
    pub async fn execute(&self, commands: Vec<Command>) -> Vec<Reply> {
        let count = commands.len();
        let replies = self.store.execute(commands.into_iter().map(Into::into).collect()).await;
        assert_eq!(replies.len(), count, "one reply for each command");
        replies
    }

    /// Executes a batch of one command.
    pub async fn run(&self, command: Command) -> Reply {
        let mut replies = self.execute(vec![command]).await;
        replies.pop().expect("a reply")
    }

    /// Executes a batch and returns the outcome codes.
    pub async fn outcome_codes(&self, commands: Vec<Command>) -> Vec<&'static str> {
        outcome_codes(&self.execute(commands).await)
    }

    /// Creates an event.
    pub async fn create(&self, new: NewEvent) -> Event {
        match self.run(command(Action::CreateEvent(Box::new(new)))).await {
            Reply::Decided(CommandOutput::Fresh(Answer::Event(event))) => *event,
            other => panic!("an event was expected: {other:?}"),
        }
    }

    /// Executes a command that must succeed, and returns its booking.
    pub async fn run_ok(&self, command: Command) -> Arc<Booking> {
        expect_booking(&self.run(command).await)
    }

    /// Creates pending bookings, one per user and quantity, in one batch.
    pub async fn hold(&self, event: EventId, orders: &[(&str, u32)]) -> Vec<Arc<Booking>> {
        let commands = orders.iter().map(|(name, quantity)| self.book(event, name, *quantity)).collect();
        self.execute(commands).await.iter().map(expect_booking).collect()
    }

    /// Creates a booking and confirms it with the payment `transaction`.
    pub async fn book_and_pay(
        &self,
        event: EventId,
        name: &str,
        quantity: u32,
        transaction: &str,
    ) -> Arc<Booking> {
        let held = self.run_ok(self.book(event, name, quantity)).await;
        self.run_ok(self.confirm(&held, transaction)).await
    }

    /// Reads an event.
    pub async fn event(&self, id: EventId) -> Event {
        self.store.event(id).await.expect("a read").expect("an event")
    }

    /// Reads a booking.
    pub async fn booking(&self, id: BookingId) -> Booking {
        self.store.booking(id).await.expect("a read").expect("a booking")
    }

    /// Reads the status of a booking.
    pub async fn status(&self, booking: &Booking) -> BookingStatus {
        self.booking(booking.id).await.status()
    }

    /// Reads the statuses of bookings.
    pub async fn statuses(&self, bookings: &[Arc<Booking>]) -> Vec<BookingStatus> {
        let mut statuses = Vec::with_capacity(bookings.len());
        for booking in bookings {
            statuses.push(self.status(booking).await);
        }
        statuses
    }

    /// Reads the whole ledger of an event.
    pub async fn ledger(&self, event: EventId) -> Vec<Entry> {
        let page = self.store.ledger(event, 0, 100_000).await.expect("a read");
        assert_eq!(page.next, None);
        page.rows
    }

    /// Reads all refunds, newest first.
    pub async fn refunds(&self) -> Vec<Refund> {
        self.store.refunds(None, None, 100_000).await.expect("a read").rows
    }

    /// Asserts that the audit finds no violation.
    pub async fn assert_audit_clean(&self) {
        let report = self.store.audit().await.expect("an audit");
        assert_eq!(report.violations, Vec::<String>::new());
    }
}
