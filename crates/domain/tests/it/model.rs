//! The documented rules, written a second time and as simply as possible: small numbers, lists, no ledger.
//! The model predicts the answer to every command; [`crate::properties`] compares.
//!
//! It must not call the rules, nor share their helpers. The overdue holds that a command frees are read from
//! the world, after checking that they were overdue and that tickets were missing.

use std::collections::BTreeMap;

/// Instants are microseconds, money is cents, users and transactions are numbers.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) details: DetailsModel,
    pub(crate) version: u32,
    /// The date of the last ledger entry.
    pub(crate) last_at: i64,
    pub(crate) bookings: Vec<BookingModel>,
}

/// The parts of an event that an organiser edits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DetailsModel {
    pub(crate) capacity: u32,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) per_booking: u32,
    pub(crate) per_user: Option<u32>,
    pub(crate) starts: i64,
    pub(crate) sales_start: Option<i64>,
    pub(crate) sales_end: Option<i64>,
    pub(crate) hold: u32,
    pub(crate) cutoff: u32,
    pub(crate) status: SalesState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) price: i64,
    pub(crate) capacity: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SalesState {
    OnSale,
    Paused,
    Cancelled,
}

/// The state of a booking in the model.
#[derive(Clone, Debug)]
pub(crate) struct BookingModel {
    pub(crate) user: u8,
    pub(crate) tickets: Vec<u32>,
    pub(crate) total: i64,
    pub(crate) until: i64,
    pub(crate) state: BookingState,
    pub(crate) version: u32,
    /// The refunds, by transaction.
    pub(crate) refunds: BTreeMap<u8, RefundModel>,
}

/// The state of a refund in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RefundModel {
    /// The refusal that a repetition of its transaction gets.
    pub(crate) refusal_code: &'static str,
    /// True if it refunds the payment that had confirmed the booking.
    pub(crate) own: bool,
    /// True if it was paid out, and the reference; `None` until the outcome is reported.
    pub(crate) settled: Option<(bool, u8)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BookingState {
    Pending,
    Paid(u8),
    Cancelled,
    Expired,
}

/// The expected answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExpectedAnswer {
    /// The booking, now in this state.
    Booking(BookingState),
    /// The booking, unchanged.
    Same,
    /// The event, with this version.
    Event(u32),
    /// The refund of this transaction, now settled.
    Settled(u8),
    /// The refund of this transaction, settled with this outcome before.
    SameRefund(u8),
    /// A refusal with this code; nothing is written.
    Refused(&'static str),
    /// A refusal with this code and the refund of this transaction, which is recorded now unless it was
    /// before.
    RefundedWith(&'static str, u8),
    /// A refusal with this code because only this number of tickets is left.
    Short(&'static str, u32),
}

/// The actor that cancels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CancelActor {
    User(u8),
    Service,
    Admin,
    System,
}

/// The amount in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Amount {
    Omitted,
    Correct,
    Wrong,
}

impl BookingModel {
    fn live(&self) -> bool {
        matches!(self.state, BookingState::Pending | BookingState::Paid(_))
    }

    fn quantity(&self) -> u32 {
        self.tickets.iter().sum()
    }

    /// The payment status of the booking.
    pub(crate) fn payment_status(&self) -> &'static str {
        let own = self.refunds.values().find(|refund| refund.own).map(|refund| refund.settled);
        match (self.state, own) {
            (BookingState::Pending, _) => "pending",
            (BookingState::Paid(_), _) => "paid",
            (BookingState::Cancelled, Some(Some((true, _)))) => "refunded",
            (BookingState::Cancelled, Some(None | Some((false, _)))) => "refundRequested",
            (BookingState::Cancelled, None) | (BookingState::Expired, _) => "failed",
        }
    }
}

impl Model {
    /// The bookings that have tickets; without the holds that are overdue at `now`, if it is set.
    fn live(&self, now: Option<i64>) -> impl Iterator<Item = &BookingModel> {
        let freeable = move |booking: &BookingModel| {
            booking.state == BookingState::Pending && now.is_some_and(|now| booking.until <= now)
        };
        self.bookings.iter().filter(move |booking| booking.live() && !freeable(booking))
    }

    /// The refusal of an order of these tickets by this user, if every hold that is overdue at `now` were
    /// freed; with `None`, without freeing any.
    pub(crate) fn shortage(&self, user: u8, tickets: &[u32], now: Option<i64>) -> Option<ExpectedAnswer> {
        let requested: u32 = tickets.iter().sum();
        let of_user: u32 =
            self.live(now).filter(|booking| booking.user == user).map(BookingModel::quantity).sum();
        if self.details.per_user.is_some_and(|limit| of_user + requested > limit) {
            return Some(ExpectedAnswer::Refused("booking_limit_exceeded"));
        }
        let short = |requested: u32, left: u32| {
            let code = if left == 0 { "sold_out" } else { "insufficient_availability" };
            (requested > left).then_some(ExpectedAnswer::Short(code, left))
        };
        let left = self.details.capacity - self.live(now).map(BookingModel::quantity).sum::<u32>();
        for (index, kind) in self.details.kinds.iter().enumerate() {
            let taken: u32 = self.live(now).map(|booking| booking.tickets[index]).sum();
            let own = kind.capacity.unwrap_or(self.details.capacity) - taken;
            if let Some(short) = short(tickets[index], own.min(left)) {
                return Some(short);
            }
        }
        short(requested, left)
    }

    pub(crate) fn cost(&self, tickets: &[u32]) -> i64 {
        self.details.kinds.iter().zip(tickets).map(|(kind, count)| kind.price * i64::from(*count)).sum()
    }

    pub(crate) fn book(&self, user: u8, tickets: &[u32], expected: Amount, now: i64) -> ExpectedAnswer {
        let details = &self.details;
        let refusals = [
            (tickets.iter().sum::<u32>() == 0, "validation_failed"),
            (tickets.iter().sum::<u32>() > details.per_booking, "booking_limit_exceeded"),
            (expected == Amount::Wrong, "amount_mismatch"),
            (details.status == SalesState::Cancelled, "event_cancelled"),
            (now >= details.starts, "event_started"),
            (details.sales_end.is_some_and(|end| now >= end), "sales_closed"),
            (details.status == SalesState::Paused, "event_paused"),
            (details.sales_start.is_some_and(|start| now < start), "sales_not_open"),
        ];
        match refusals.into_iter().find(|(is_refused, _)| *is_refused) {
            Some((_, code)) => ExpectedAnswer::Refused(code),
            None => self
                .shortage(user, tickets, Some(now))
                .unwrap_or(ExpectedAnswer::Booking(BookingState::Pending)),
        }
    }

    pub(crate) fn confirm(&self, index: usize, transaction: u8, amount: Amount, now: i64) -> ExpectedAnswer {
        let Some(booking) = self.bookings.get(index) else { return ExpectedAnswer::Refused("not_found") };
        let cancelled = self.details.status == SalesState::Cancelled;
        if let Some(RefundModel { refusal_code, .. }) = booking.refunds.get(&transaction) {
            // The cancellation of the event takes precedence over the state of the booking.
            let refusal_code =
                if cancelled && *refusal_code == "invalid_state" { "event_cancelled" } else { refusal_code };
            return ExpectedAnswer::RefundedWith(refusal_code, transaction);
        }
        if amount == Amount::Wrong {
            return ExpectedAnswer::Refused("amount_mismatch");
        }
        if booking.state == BookingState::Paid(transaction) {
            return ExpectedAnswer::Same;
        }
        if cancelled {
            return ExpectedAnswer::RefundedWith("event_cancelled", transaction);
        }
        match booking.state {
            BookingState::Pending => ExpectedAnswer::Booking(BookingState::Paid(transaction)),
            BookingState::Expired if self.shortage(booking.user, &booking.tickets, Some(now)).is_none() => {
                ExpectedAnswer::Booking(BookingState::Paid(transaction))
            }
            BookingState::Expired => ExpectedAnswer::RefundedWith("hold_expired", transaction),
            BookingState::Paid(_) | BookingState::Cancelled => {
                ExpectedAnswer::RefundedWith("invalid_state", transaction)
            }
        }
    }

    pub(crate) fn cancel(&self, index: usize, by: CancelActor, now: i64) -> ExpectedAnswer {
        let stranger = |booking: &BookingModel| matches!(by, CancelActor::User(user) if user != booking.user);
        let Some(booking) = self.bookings.get(index).filter(|booking| !stranger(booking)) else {
            return ExpectedAnswer::Refused("not_found");
        };
        let until = self.details.starts - i64::from(self.details.cutoff) * 1_000_000;
        match booking.state {
            BookingState::Cancelled | BookingState::Expired => ExpectedAnswer::Refused("invalid_state"),
            BookingState::Paid(_) if matches!(by, CancelActor::User(_)) && now > until => {
                ExpectedAnswer::Refused("cancel_cutoff_passed")
            }
            BookingState::Pending | BookingState::Paid(_) => ExpectedAnswer::Booking(BookingState::Cancelled),
        }
    }

    pub(crate) fn expire(&self, index: usize, now: i64) -> ExpectedAnswer {
        match self.bookings.get(index) {
            None => ExpectedAnswer::Refused("not_found"),
            Some(booking) if booking.state == BookingState::Pending && booking.until <= now => {
                ExpectedAnswer::Booking(BookingState::Expired)
            }
            Some(_) => ExpectedAnswer::Refused("invalid_state"),
        }
    }

    pub(crate) fn settle(&self, index: usize, transaction: u8, succeeded: bool) -> ExpectedAnswer {
        let refund = self.bookings.get(index).and_then(|booking| booking.refunds.get(&transaction));
        match refund.map(|refund| refund.settled) {
            None => ExpectedAnswer::Refused("not_found"),
            Some(Some((before, _))) if before == succeeded => ExpectedAnswer::SameRefund(transaction),
            Some(Some((true, _))) => ExpectedAnswer::RefundedWith("invalid_state", transaction),
            Some(None | Some((false, _))) => ExpectedAnswer::Settled(transaction),
        }
    }

    /// An edit that changes the event to `after`; `start_edited` if it contains the start.
    pub(crate) fn edit(
        &self,
        after: &DetailsModel,
        if_match: Option<bool>,
        start_edited: bool,
        now: i64,
    ) -> ExpectedAnswer {
        let taken = |index: usize| self.live(None).map(|booking| booking.tickets[index]).sum::<u32>();
        let all: u32 = self.live(None).map(BookingModel::quantity).sum();
        let lowered = match (self.details.per_user, after.per_user) {
            (Some(before), Some(after)) => after < before,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        let too_small = |capacity: Option<u32>| capacity == Some(0);
        // Errors of the edit itself come before everything that depends on the event.
        let invalid_alone = after.capacity == 0
            || after.per_booking == 0
            || after.hold == 0
            || too_small(after.per_user)
            || (start_edited && after.starts <= now)
            || after.kinds.iter().any(|kind| too_small(kind.capacity));
        let invalid_here =
            lowered || after.sales_start.zip(after.sales_end).is_some_and(|(start, end)| end <= start);
        let part_in_use = |(index, kind): (usize, &Kind)| kind.capacity.is_some_and(|own| own < taken(index));
        let in_use = all > after.capacity || after.kinds.iter().enumerate().any(part_in_use);
        let refusals = [
            (invalid_alone, "validation_failed"),
            (if_match == Some(false), "version_mismatch"),
            (self.details.status == SalesState::Cancelled, "event_cancelled"),
            (invalid_here, "validation_failed"),
            (in_use, "capacity_in_use"),
        ];
        match refusals.into_iter().find(|(is_refused, _)| *is_refused) {
            Some((_, code)) => ExpectedAnswer::Refused(code),
            None => ExpectedAnswer::Event(self.version + u32::from(*after != self.details)),
        }
    }

    /// Records an entry: its date is never before that of the previous entry.
    pub(crate) fn record_date(&mut self, now: i64) {
        self.last_at = self.last_at.max(now);
    }

    /// Records that the world freed this hold while it processed a command.
    pub(crate) fn record_expiry(&mut self, index: usize, now: i64) {
        let booking = &mut self.bookings[index];
        assert!(
            booking.state == BookingState::Pending && booking.until <= now,
            "freed a hold that was not overdue"
        );
        booking.state = BookingState::Expired;
        booking.version += 1;
        self.record_date(now);
    }

    /// Records the new state of a booking.
    pub(crate) fn record_state(&mut self, index: usize, to: BookingState, now: i64) {
        let booking = &mut self.bookings[index];
        if let (BookingState::Paid(transaction), BookingState::Cancelled) = (booking.state, to) {
            let refusal_code = if self.details.status == SalesState::Cancelled {
                "event_cancelled"
            } else {
                "invalid_state"
            };
            assert_eq!(
                booking.refunds.insert(transaction, RefundModel { refusal_code, own: true, settled: None }),
                None
            );
        }
        booking.state = to;
        booking.version += 1;
        self.record_date(now);
    }

    /// Records the refund of a payment. Returns true if it is new.
    pub(crate) fn record_refund(
        &mut self,
        index: usize,
        transaction: u8,
        refusal_code: &'static str,
        now: i64,
    ) -> bool {
        let booking = &mut self.bookings[index];
        if booking.refunds.contains_key(&transaction) {
            return false;
        }
        booking.refunds.insert(transaction, RefundModel { refusal_code, own: false, settled: None });
        booking.version += 1;
        self.record_date(now);
        true
    }

    /// Records the new outcome of a refund.
    pub(crate) fn record_settlement(&mut self, index: usize, transaction: u8, outcome: (bool, u8), now: i64) {
        let booking = &mut self.bookings[index];
        booking.refunds.get_mut(&transaction).unwrap().settled = Some(outcome);
        booking.version += 1;
        self.record_date(now);
    }
}
