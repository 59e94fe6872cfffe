//! The invariants of a world after any sequence of commands: the ledger alone is replayed, and the result is
//! compared with every count that the rules maintain.

use std::collections::BTreeMap;

use domain::{
    Booking, BookingId, BookingStatus, Entry, EntryKind, LedgerStatus, PaymentStatus, RefundId, State,
    Tallies, TicketTypeId, Timestamp,
};

use crate::rows;
use crate::world::World;

/// The state of one booking according to the ledger.
#[derive(Debug, Default)]
struct BookingReplay {
    status: Option<LedgerStatus>,
    last: Option<u64>,
    /// The number of changes so far; a cancellation and its refund are one change.
    version: u32,
    /// The number of the cancellation of a paid booking, if the next entry must record its refund.
    refund_due_after: Option<u64>,
    /// The refund that was recorded with the cancellation: that of the payment that had confirmed the
    /// booking.
    own_refund: Option<RefundId>,
    refunds: BTreeMap<RefundId, RefundReplay>,
}

/// The state of one refund according to the ledger.
#[derive(Clone, Copy, Debug)]
struct RefundReplay {
    status: LedgerStatus,
    requested: Timestamp,
    settled: Option<Timestamp>,
}

/// The kind of an entry; the rules create known kinds only.
fn known_kind(entry: &Entry) -> EntryKind {
    entry.kind.known().expect("a known kind")
}

impl BookingReplay {
    /// The payment status of the booking: it shows only the refund of the booking's own payment.
    fn payment_status(&self) -> PaymentStatus {
        match (self.status.unwrap(), self.own_refund.map(|own| self.refunds[&own].status)) {
            (LedgerStatus::Pending, None) => PaymentStatus::Pending,
            (LedgerStatus::Confirmed, None) => PaymentStatus::Paid,
            (LedgerStatus::Cancelled | LedgerStatus::Expired, None) => PaymentStatus::Failed,
            (LedgerStatus::Cancelled, Some(LedgerStatus::Requested | LedgerStatus::Failed)) => {
                PaymentStatus::RefundRequested
            }
            (LedgerStatus::Cancelled, Some(LedgerStatus::Succeeded)) => PaymentStatus::Refunded,
            other => panic!("no such booking: {other:?}"),
        }
    }
}

/// The state of an event according to the ledger.
#[derive(Debug, Default)]
struct LedgerReplay {
    seq: u64,
    at: Option<Timestamp>,
    capacity: i64,
    available: i64,
    held: BTreeMap<TicketTypeId, i64>,
    sold: BTreeMap<TicketTypeId, i64>,
    bookings: BTreeMap<BookingId, BookingReplay>,
}

/// Panics with a description of the violation unless every invariant holds.
pub(crate) fn check(world: &World) {
    let mut replay = LedgerReplay::default();
    for entry in &world.ledger {
        replay.apply(entry);
    }
    let Some(event) = &world.event else {
        assert!(world.ledger.is_empty() && world.bookings.is_empty());
        return;
    };
    assert_eq!(replay.seq, event.inventory.seq, "last number of the event");
    assert_eq!(replay.at, Some(event.inventory.last_at), "last time of the event");
    assert_eq!(replay.capacity, i64::from(event.inventory.capacity), "capacity according to the ledger");
    assert_eq!(replay.available, i64::from(event.available()), "available according to the ledger");
    check_counts(world, &replay);
    for booking in world.bookings.values() {
        let booking_replay = &replay.bookings[&booking.id];
        assert_eq!(booking_replay.status, Some(booking.status().into()), "status according to the ledger");
        assert_eq!(booking_replay.version, booking.version, "version according to the ledger");
        assert_eq!(booking_replay.last, Some(booking.last_seq), "last entry of the booking");
        assert_eq!(booking_replay.refund_due_after, None, "a paid booking was cancelled without a refund");
        assert_eq!(
            booking_replay.payment_status(),
            booking.payment_status(),
            "payment status according to the ledger"
        );
        let total =
            booking.items.iter().map(|item| item.unit_price.amount() * i64::from(item.quantity)).sum();
        assert_eq!(booking.total.amount(), total, "total of {}", booking.id);
    }
    assert_eq!(replay.bookings.len(), world.bookings.len(), "bookings according to the ledger");
    check_payments(world, &replay);
    rows::assert_audit_clean(world);
}

/// Compares the counters with the bookings, per ticket type and event, and both with the ledger.
fn check_counts(world: &World, replay: &LedgerReplay) {
    let event = world.event();
    let live = |status: BookingStatus| world.bookings.values().filter(move |b| b.status() == status);
    let of_type = |status, id| -> u32 {
        live(status).flat_map(|b| b.items.iter()).filter(|i| i.ticket_type == id).map(|i| i.quantity).sum()
    };
    let (mut held, mut sold) = (0, 0);
    for (kind, inventory) in event.details.ticket_types.iter().zip(&event.inventory.types) {
        assert_eq!(inventory.held, of_type(BookingStatus::Pending, kind.id), "held of {}", kind.id);
        assert_eq!(inventory.sold, of_type(BookingStatus::Confirmed, kind.id), "sold of {}", kind.id);
        let replayed = |counts: &BTreeMap<_, _>| counts.get(&kind.id).copied().unwrap_or(0);
        assert_eq!(i64::from(inventory.held), replayed(&replay.held), "held according to the ledger");
        assert_eq!(i64::from(inventory.sold), replayed(&replay.sold), "sold according to the ledger");
        assert!(
            inventory.held + inventory.sold <= inventory.capacity.unwrap_or(event.inventory.capacity),
            "type oversold"
        );
        held += inventory.held;
        sold += inventory.sold;
    }
    assert_eq!(
        (event.inventory.held, event.inventory.sold),
        (held, sold),
        "the counters of the event are the sums of its ticket types"
    );
    assert!(held + sold <= event.inventory.capacity, "oversold");
    assert_eq!(event.available() + held + sold, event.inventory.capacity, "no ticket is lost");

    let number = |status| u64::try_from(live(status).count()).unwrap();
    let tallies = Tallies {
        pending: number(BookingStatus::Pending),
        confirmed: number(BookingStatus::Confirmed),
        cancelled: number(BookingStatus::Cancelled),
        expired: number(BookingStatus::Expired),
        revenue: live(BookingStatus::Confirmed).map(|booking| i128::from(booking.total.amount())).sum(),
    };
    assert_eq!(event.inventory.tallies, tallies, "tallies");
    if let Some(limit) = event.details.max_tickets_per_user {
        let mut users = BTreeMap::new();
        for booking in world.bookings.values() {
            let holds = matches!(booking.status(), BookingStatus::Pending | BookingStatus::Confirmed);
            *users.entry(booking.user.clone()).or_insert(0) +=
                if holds { booking.items.quantity() } else { 0 };
        }
        assert!(users.values().all(|count| *count <= limit), "a user holds more than {limit}: {users:?}");
        assert_eq!(world.user_tickets, users, "tickets per user");
    }
}

/// Every captured payment pays for a confirmed booking or has one refund, never both; there are no other
/// payments and refunds.
fn check_payments(world: &World, replay: &LedgerReplay) {
    for (id, transaction) in &world.captured {
        let pays = match &world.booking(*id).state {
            State::Confirmed(payment) => payment.transaction == *transaction,
            State::Pending | State::Cancelled { .. } | State::Expired { .. } => false,
        };
        let refunded = world.refunds.contains_key(&(*id, transaction.clone()));
        assert!(pays != refunded, "{transaction} of {id}: pays {pays}, refunded {refunded}");
    }
    let pays = |booking: &&std::sync::Arc<Booking>| booking.status() == BookingStatus::Confirmed;
    let paying = world.bookings.values().filter(pays).count();
    assert_eq!(
        paying + world.refunds.len(),
        world.captured.len(),
        "a payment or a refund without a captured payment"
    );
    let mut replayed = BTreeMap::new();
    for (id, booking_replay) in &replay.bookings {
        replayed.extend(
            booking_replay
                .refunds
                .iter()
                .map(|(refund, refund_due)| (*refund, (*id, booking_replay, *refund_due))),
        );
    }
    assert_eq!(replayed.len(), world.refunds.len(), "refunds according to the ledger");
    for ((id, transaction), refund) in &world.refunds {
        let (of, booking_replay, refund_due) = replayed[&refund.id];
        assert_eq!(of, *id, "the booking of the refund's entry");
        assert_eq!(refund_due.status, refund.status.into(), "status of the refund according to the ledger");
        assert_eq!(refund_due.settled.is_some(), refund.settled_at.is_some(), "settled");
        let dated = refund_due.requested >= refund.created_at && refund_due.settled >= refund.settled_at;
        assert!(dated, "the date of an entry is not before the clock");
        assert_eq!(refund.provider_reference.is_some(), refund.settled_at.is_some(), "provider reference");
        let own = world.booking(*id).payment().is_some_and(|payment| payment.transaction == *transaction);
        assert_eq!(
            booking_replay.own_refund == Some(refund.id),
            own,
            "the refund of the booking's own payment"
        );
        assert_eq!((refund.booking_id, &refund.transaction), (*id, transaction), "the refund's payment");
        assert_eq!(refund.amount, world.booking(*id).total, "a refund is of the amount that was paid");
    }
}

impl BookingReplay {
    /// Applies an entry of a refund; `refund_due` if the previous entry cancelled a paid booking.
    fn apply_refund(&mut self, entry: &Entry, refund_due: bool) {
        assert!(self.status.is_some(), "a refund before its booking");
        assert_eq!((entry.quantity, entry.lines.len()), (0, 0), "a refund moves no ticket");
        let id = entry.refund_id.unwrap();
        let known = self.refunds.get(&id).copied();
        assert_eq!(entry.from, known.map(|known| known.status), "a refund has the status of its last entry");
        // The state table of a refund. Nothing else may ever be written.
        let now = match (known_kind(entry), entry.from, entry.to, known) {
            (EntryKind::RefundRequested, None, Some(status @ LedgerStatus::Requested), None) => {
                RefundReplay { status, requested: entry.at, settled: None }
            }
            (
                EntryKind::RefundSettled,
                Some(LedgerStatus::Requested),
                Some(status @ (LedgerStatus::Succeeded | LedgerStatus::Failed)),
                Some(known),
            )
            | (
                EntryKind::RefundSettled,
                Some(LedgerStatus::Failed),
                Some(status @ LedgerStatus::Succeeded),
                Some(known),
            ) => {
                assert!(!refund_due, "the refund comes right after its cancellation");
                RefundReplay { status, settled: Some(entry.at), ..known }
            }
            other => panic!("no such transition of a refund: {other:?}"),
        };
        self.refunds.insert(id, now);
        if refund_due {
            assert_eq!(self.own_refund.replace(id), None, "a second refund of one payment");
        }
        self.version += u32::from(!refund_due);
        self.last = Some(entry.seq);
    }
}

impl LedgerReplay {
    fn apply(&mut self, entry: &Entry) {
        assert_eq!(entry.seq, self.seq + 1, "numbers without a gap");
        assert!(self.at.is_none_or(|before| before <= entry.at), "the dates of the ledger decrease");
        assert_eq!(entry.kind == EntryKind::EventCreated, entry.seq == 1, "entry 1 creates the event");
        (self.seq, self.at) = (entry.seq, Some(entry.at));
        let after = i64::from(entry.available_after);
        match known_kind(entry) {
            EntryKind::EventCreated | EntryKind::EventUpdated | EntryKind::EventCancelled => {
                assert_eq!((entry.booking_id, entry.previous_seq, entry.lines.len()), (None, None, 0));
                let resized = after - self.available;
                assert_eq!(resized.abs(), i64::from(entry.quantity), "the change of capacity");
                self.capacity += resized;
                self.available = after;
            }
            EntryKind::BookingCreated
            | EntryKind::BookingConfirmed
            | EntryKind::BookingCancelled
            | EntryKind::BookingExpired
            | EntryKind::RefundRequested
            | EntryKind::RefundSettled => self.apply_booking(entry),
        }
        assert_eq!(after, self.available, "available after entry {}", entry.seq);
        assert!((0..=self.capacity).contains(&after), "oversold at entry {}", entry.seq);
    }

    fn apply_booking(&mut self, entry: &Entry) {
        let booking_replay = self.bookings.entry(entry.booking_id.unwrap()).or_default();
        assert_eq!(entry.previous_seq, booking_replay.last, "previous entry of the booking");
        let refund_of = booking_replay.refund_due_after.take();
        if matches!(known_kind(entry), EntryKind::RefundRequested | EntryKind::RefundSettled) {
            booking_replay.apply_refund(entry, refund_of.is_some());
            return;
        }
        assert_eq!(refund_of, None, "the refund comes right after its cancellation");
        assert_eq!(entry.refund_id, None);
        assert_eq!(entry.from, booking_replay.status, "a booking has the status of its last entry");
        let lines: u32 = entry.lines.iter().map(|line| line.quantity).sum();
        assert_eq!(entry.quantity, lines, "the quantity is the sum of its lines");
        assert!(lines > 0);
        // The transition table. Nothing else may ever be written.
        let (held, sold) = match (known_kind(entry), entry.from, entry.to) {
            (EntryKind::BookingCreated, None, Some(LedgerStatus::Pending)) => (1, 0),
            (EntryKind::BookingConfirmed, Some(LedgerStatus::Pending), Some(LedgerStatus::Confirmed)) => {
                (-1, 1)
            }
            (EntryKind::BookingConfirmed, Some(LedgerStatus::Expired), Some(LedgerStatus::Confirmed)) => {
                (0, 1)
            }
            (EntryKind::BookingCancelled, Some(LedgerStatus::Pending), Some(LedgerStatus::Cancelled))
            | (EntryKind::BookingExpired, Some(LedgerStatus::Pending), Some(LedgerStatus::Expired)) => {
                (-1, 0)
            }
            (EntryKind::BookingCancelled, Some(LedgerStatus::Confirmed), Some(LedgerStatus::Cancelled)) => {
                booking_replay.refund_due_after = Some(entry.seq);
                (0, -1)
            }
            other => panic!("no such transition: {other:?}"),
        };
        (booking_replay.status, booking_replay.last) = (entry.to, Some(entry.seq));
        booking_replay.version += 1;
        for line in &entry.lines {
            let quantity = i64::from(line.quantity);
            *self.held.entry(line.ticket_type).or_default() += held * quantity;
            *self.sold.entry(line.ticket_type).or_default() += sold * quantity;
        }
        self.available -= (held + sold) * i64::from(entry.quantity);
    }
}
