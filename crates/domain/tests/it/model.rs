//! What the contract says, written a second time and as plainly as possible: small numbers, lists, no
//! ledger. It foresees the answer of every command; [`crate::properties`] compares.
//!
//! It must not call the rules, nor share their helpers. Which overdue holds are freed on the way is
//! learnt from the world, after checking that they were overdue and that something was missing.

use std::collections::BTreeMap;

/// Instants are microseconds, money is cents, users and transactions are numbers.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) about: About,
    pub(crate) version: u32,
    /// The date of the last ledger entry.
    pub(crate) last_at: i64,
    pub(crate) bookings: Vec<Known>,
}

/// What an organiser edits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) capacity: u32,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) per_booking: u32,
    pub(crate) per_user: Option<u32>,
    pub(crate) starts: i64,
    pub(crate) sales_start: Option<i64>,
    pub(crate) sales_end: Option<i64>,
    pub(crate) hold: u32,
    pub(crate) cutoff: u32,
    pub(crate) status: EventIs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) price: i64,
    pub(crate) capacity: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventIs {
    OnSale,
    Paused,
    Cancelled,
}

/// A booking as the model knows it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) user: u8,
    pub(crate) tickets: Vec<u32>,
    pub(crate) total: i64,
    pub(crate) until: i64,
    pub(crate) is: Is,
    pub(crate) version: u32,
    /// Refunded transactions.
    pub(crate) refunds: BTreeMap<u8, Owed>,
}

/// A refund as the model knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owed {
    /// What its transaction hears when it comes again.
    pub(crate) heard: &'static str,
    /// Whether it gives back what had bought the booking.
    pub(crate) own: bool,
    /// Whether it was paid out, and under which reference; `None` until somebody said so.
    pub(crate) settled: Option<(bool, u8)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Is {
    Pending,
    Paid(u8),
    Cancelled,
    Expired,
}

/// What the asker must hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// The booking, now in this state.
    Booking(Is),
    /// The booking as it was.
    Same,
    /// The event, at this version.
    Event(u32),
    /// The refund of this transaction, now settled.
    Settled(u8),
    /// The refund of this transaction, settled like that before.
    SameRefund(u8),
    /// No; nothing is written.
    Refused(&'static str),
    /// No, naming the refund of this transaction; recorded now unless it was before.
    RefundedWith(&'static str, u8),
    /// No: so many are left of what was short.
    Short(&'static str, u32),
}

/// Who cancels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    User(u8),
    Service,
    Admin,
    System,
}

/// How much of the amount is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Amount {
    Unsaid,
    Right,
    Wrong,
}

impl Known {
    fn live(&self) -> bool {
        matches!(self.is, Is::Pending | Is::Paid(_))
    }

    fn quantity(&self) -> u32 {
        self.tickets.iter().sum()
    }

    /// The word for where the booking's money stands.
    pub(crate) fn money(&self) -> &'static str {
        let own = self.refunds.values().find(|owed| owed.own).map(|owed| owed.settled);
        match (self.is, own) {
            (Is::Pending, _) => "pending",
            (Is::Paid(_), _) => "paid",
            (Is::Cancelled, Some(Some((true, _)))) => "refunded",
            (Is::Cancelled, Some(None | Some((false, _)))) => "refundRequested",
            (Is::Cancelled, None) | (Is::Expired, _) => "failed",
        }
    }
}

impl Model {
    /// The bookings that keep tickets, with those that could be freed or without them.
    fn live(&self, now: Option<i64>) -> impl Iterator<Item = &Known> {
        let freeable =
            move |known: &Known| known.is == Is::Pending && now.is_some_and(|now| known.until <= now);
        self.bookings.iter().filter(move |known| known.live() && !freeable(known))
    }

    /// What stands against so many tickets for that user, if every hold overdue at `now` were freed; with
    /// `None`, as things stand.
    pub(crate) fn lack(&self, user: u8, tickets: &[u32], now: Option<i64>) -> Option<Expect> {
        let wanted: u32 = tickets.iter().sum();
        let mine: u32 = self.live(now).filter(|known| known.user == user).map(Known::quantity).sum();
        if self.about.per_user.is_some_and(|limit| mine + wanted > limit) {
            return Some(Expect::Refused("booking_limit_exceeded"));
        }
        let short = |wanted: u32, left: u32| {
            let code = if left == 0 { "sold_out" } else { "insufficient_availability" };
            (wanted > left).then_some(Expect::Short(code, left))
        };
        let left = self.about.capacity - self.live(now).map(Known::quantity).sum::<u32>();
        for (place, kind) in self.about.kinds.iter().enumerate() {
            let taken: u32 = self.live(now).map(|known| known.tickets[place]).sum();
            let own = kind.capacity.unwrap_or(self.about.capacity) - taken;
            if let Some(short) = short(tickets[place], own.min(left)) {
                return Some(short);
            }
        }
        short(wanted, left)
    }

    pub(crate) fn cost(&self, tickets: &[u32]) -> i64 {
        self.about.kinds.iter().zip(tickets).map(|(kind, count)| kind.price * i64::from(*count)).sum()
    }

    pub(crate) fn book(&self, user: u8, tickets: &[u32], expected: Amount, now: i64) -> Expect {
        let about = &self.about;
        let refusals = [
            (tickets.iter().sum::<u32>() == 0, "validation_failed"),
            (tickets.iter().sum::<u32>() > about.per_booking, "booking_limit_exceeded"),
            (expected == Amount::Wrong, "amount_mismatch"),
            (about.status == EventIs::Cancelled, "event_cancelled"),
            (now >= about.starts, "event_started"),
            (about.sales_end.is_some_and(|end| now >= end), "sales_closed"),
            (about.status == EventIs::Paused, "event_paused"),
            (about.sales_start.is_some_and(|start| now < start), "sales_not_open"),
        ];
        match refusals.into_iter().find(|(wrong, _)| *wrong) {
            Some((_, code)) => Expect::Refused(code),
            None => self.lack(user, tickets, Some(now)).unwrap_or(Expect::Booking(Is::Pending)),
        }
    }

    pub(crate) fn confirm(&self, index: usize, transaction: u8, amount: Amount, now: i64) -> Expect {
        let Some(known) = self.bookings.get(index) else { return Expect::Refused("not_found") };
        let cancelled = self.about.status == EventIs::Cancelled;
        if let Some(Owed { heard, .. }) = known.refunds.get(&transaction) {
            // The end of the event outranks the state of the booking.
            let heard = if cancelled && *heard == "invalid_state" { "event_cancelled" } else { heard };
            return Expect::RefundedWith(heard, transaction);
        }
        if amount == Amount::Wrong {
            return Expect::Refused("amount_mismatch");
        }
        if known.is == Is::Paid(transaction) {
            return Expect::Same;
        }
        if cancelled {
            return Expect::RefundedWith("event_cancelled", transaction);
        }
        match known.is {
            Is::Pending => Expect::Booking(Is::Paid(transaction)),
            Is::Expired if self.lack(known.user, &known.tickets, Some(now)).is_none() => {
                Expect::Booking(Is::Paid(transaction))
            }
            Is::Expired => Expect::RefundedWith("hold_expired", transaction),
            Is::Paid(_) | Is::Cancelled => Expect::RefundedWith("invalid_state", transaction),
        }
    }

    pub(crate) fn cancel(&self, index: usize, by: By, now: i64) -> Expect {
        let stranger = |known: &Known| matches!(by, By::User(user) if user != known.user);
        let Some(known) = self.bookings.get(index).filter(|known| !stranger(known)) else {
            return Expect::Refused("not_found");
        };
        let until = self.about.starts - i64::from(self.about.cutoff) * 1_000_000;
        match known.is {
            Is::Cancelled | Is::Expired => Expect::Refused("invalid_state"),
            Is::Paid(_) if matches!(by, By::User(_)) && now > until => {
                Expect::Refused("cancel_cutoff_passed")
            }
            Is::Pending | Is::Paid(_) => Expect::Booking(Is::Cancelled),
        }
    }

    pub(crate) fn expire(&self, index: usize, now: i64) -> Expect {
        match self.bookings.get(index) {
            None => Expect::Refused("not_found"),
            Some(known) if known.is == Is::Pending && known.until <= now => Expect::Booking(Is::Expired),
            Some(_) => Expect::Refused("invalid_state"),
        }
    }

    pub(crate) fn settle(&self, index: usize, transaction: u8, succeeded: bool) -> Expect {
        let owed = self.bookings.get(index).and_then(|known| known.refunds.get(&transaction));
        match owed.map(|owed| owed.settled) {
            None => Expect::Refused("not_found"),
            Some(Some((before, _))) if before == succeeded => Expect::SameRefund(transaction),
            Some(Some((true, _))) => Expect::RefundedWith("invalid_state", transaction),
            Some(None | Some((false, _))) => Expect::Settled(transaction),
        }
    }

    /// An edit that makes of the event what `after` says; `start_edited` where it names the start.
    pub(crate) fn edit(&self, after: &About, if_match: Option<bool>, start_edited: bool, now: i64) -> Expect {
        let taken = |place: usize| self.live(None).map(|known| known.tickets[place]).sum::<u32>();
        let all: u32 = self.live(None).map(Known::quantity).sum();
        let lowered = match (self.about.per_user, after.per_user) {
            (Some(before), Some(after)) => after < before,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        let too_small = |capacity: Option<u32>| capacity == Some(0);
        // What the edit alone shows to be wrong comes before everything that is known of the event.
        let invalid_alone = after.capacity == 0
            || after.per_booking == 0
            || after.hold == 0
            || too_small(after.per_user)
            || (start_edited && after.starts <= now)
            || after.kinds.iter().any(|kind| too_small(kind.capacity));
        let invalid_here =
            lowered || after.sales_start.zip(after.sales_end).is_some_and(|(start, end)| end <= start);
        let part_in_use = |(place, kind): (usize, &Kind)| kind.capacity.is_some_and(|own| own < taken(place));
        let in_use = all > after.capacity || after.kinds.iter().enumerate().any(part_in_use);
        let refusals = [
            (invalid_alone, "validation_failed"),
            (if_match == Some(false), "version_mismatch"),
            (self.about.status == EventIs::Cancelled, "event_cancelled"),
            (invalid_here, "validation_failed"),
            (in_use, "capacity_in_use"),
        ];
        match refusals.into_iter().find(|(wrong, _)| *wrong) {
            Some((_, code)) => Expect::Refused(code),
            None => Expect::Event(self.version + u32::from(*after != self.about)),
        }
    }

    /// An entry is written: its date never lies before the entry before it.
    pub(crate) fn date(&mut self, now: i64) {
        self.last_at = self.last_at.max(now);
    }

    /// The world freed this hold on its way to an answer.
    pub(crate) fn freed(&mut self, index: usize, now: i64) {
        let known = &mut self.bookings[index];
        assert!(known.is == Is::Pending && known.until <= now, "freed a hold that was not overdue");
        known.is = Is::Expired;
        known.version += 1;
        self.date(now);
    }

    /// A booking came to a new state.
    pub(crate) fn moved(&mut self, index: usize, to: Is, now: i64) {
        let known = &mut self.bookings[index];
        if let (Is::Paid(transaction), Is::Cancelled) = (known.is, to) {
            let heard =
                if self.about.status == EventIs::Cancelled { "event_cancelled" } else { "invalid_state" };
            assert_eq!(known.refunds.insert(transaction, Owed { heard, own: true, settled: None }), None);
        }
        known.is = to;
        known.version += 1;
        self.date(now);
    }

    /// A payment was given back. Says whether that was news.
    pub(crate) fn refunded(&mut self, index: usize, transaction: u8, heard: &'static str, now: i64) -> bool {
        let known = &mut self.bookings[index];
        if known.refunds.contains_key(&transaction) {
            return false;
        }
        known.refunds.insert(transaction, Owed { heard, own: false, settled: None });
        known.version += 1;
        self.date(now);
        true
    }

    /// The outcome of a refund is news.
    pub(crate) fn settled(&mut self, index: usize, transaction: u8, outcome: (bool, u8), now: i64) {
        let known = &mut self.bookings[index];
        known.refunds.get_mut(&transaction).unwrap().settled = Some(outcome);
        known.version += 1;
        self.date(now);
    }
}
