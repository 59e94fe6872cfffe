//! Random histories of one event: [`Model`] predicts each step, and every invariant is checked after it. Few
//! users, few transactions, few tickets and an event in the near future make conflicts likely.

use std::cell::RefCell;
use std::collections::BTreeMap;

use domain::{
    Actor, Answer, BookingId, BookingStatus, EventPatch, EventStatus, NewEvent, RefundStatus, Refusal, State,
    TicketSelection, TicketTypePatch,
};
use proptest::collection::vec;
use proptest::test_runner::{Config, TestRunner};

use crate::histories::{Edit, REQUIRED_OUTCOMES, Step, details, step};
use crate::invariants;
use crate::model::{
    Amount, BookingModel, BookingState, CancelActor, DetailsModel, ExpectedAnswer, Kind, Model, SalesState,
};
use crate::world::{
    World, admin, eur, named_refund, new_event, new_ticket_type, outcome_code, payment, service, shifted,
    ticket_type, user,
};

/// Number of histories; `PROPTEST_CASES` may raise it.
const CASES: u32 = 512;
#[test]
fn any_history_matches_the_model() {
    let config = Config::default();
    // A failure prints its minimized history, from which a regression test can be written; nothing is saved
    // to disk.
    let config = Config { cases: config.cases.max(CASES), failure_persistence: None, ..config };
    let reached = RefCell::new(BTreeMap::new());
    let history = (details(), vec(step(), 1..120));
    let result = TestRunner::new(config).run(&history, |(details, steps)| {
        let mut run = Run::new(details);
        for step in steps {
            let outcome = run.step(&step);
            invariants::check(&run.world);
            run.compare();
            *reached.borrow_mut().entry(outcome).or_insert(0) += 1;
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    // A passing run proves nothing about outcomes that never occurred.
    let reached = reached.into_inner();
    for outcome in REQUIRED_OUTCOMES {
        assert!(reached.contains_key(*outcome), "never reached: {outcome}; reached: {reached:#?}");
    }
}

/// A world and its model.
struct Run {
    world: World,
    model: Model,
    ids: Vec<BookingId>,
}

fn name(user: u8) -> String {
    format!("user-{user}")
}

fn transaction(number: u8) -> String {
    format!("t{number}")
}

fn payout(number: u8) -> String {
    format!("payout-{number}")
}

fn status(is: SalesState) -> EventStatus {
    match is {
        SalesState::OnSale => EventStatus::OnSale,
        SalesState::Paused => EventStatus::Paused,
        SalesState::Cancelled => EventStatus::Cancelled,
    }
}

impl Run {
    fn new(details: DetailsModel) -> Self {
        let made = |(index, known): (u8, &Kind)| new_ticket_type(index, known.price, known.capacity);
        let new = NewEvent {
            capacity: details.capacity,
            ticket_types: (0u8..).zip(&details.kinds).map(made).collect(),
            max_tickets_per_booking: details.per_booking,
            max_tickets_per_user: details.per_user,
            hold_seconds: details.hold,
            cancel_cutoff_seconds: details.cutoff,
            starts_at: shifted(World::empty().now, details.starts - World::empty().now.micros()),
            ..new_event()
        };
        let world = World::selling(new);
        let last_at = world.now.micros();
        Self { world, model: Model { details, version: 1, last_at, bookings: Vec::new() }, ids: Vec::new() }
    }

    /// The clock, which decides; unlike the dates of the ledger it may step back.
    fn now(&self) -> i64 {
        self.world.now.micros()
    }

    /// The booking that a random number selects: one of the last six, or sometimes none.
    fn booking_index(&self, number: u8) -> usize {
        let back = usize::from(number % 6) + 1;
        if number > 250 { usize::MAX } else { self.ids.len().saturating_sub(back) }
    }

    fn id(&self, index: usize) -> BookingId {
        self.ids.get(index).copied().unwrap_or_else(|| self.world.next_booking())
    }

    /// Executes one step in the world and in the model, and returns a name for the outcome.
    fn step(&mut self, step: &Step) -> String {
        match step {
            Step::Wait { seconds } => {
                self.world.wait(*seconds);
                "waited".to_owned()
            }
            Step::WaitFor { edge, micros } => {
                self.wait_for(*edge, *micros);
                "waited".to_owned()
            }
            Step::Book { user, tickets, expected } => self.book(*user, tickets, *expected),
            Step::Confirm { booking, transaction, amount } => {
                self.confirm(self.booking_index(*booking), *transaction, *amount)
            }
            Step::Cancel { booking, by } => self.cancel(self.booking_index(*booking), *by),
            Step::Expire { booking } => {
                let index = self.booking_index(*booking);
                let expected = self.model.expire(index, self.now());
                let answer = self.world.expire(self.id(index));
                self.check_answer(index, &answer, &expected)
            }
            Step::Settle { booking, transaction, succeeded, reference } => {
                self.settle(self.booking_index(*booking), *transaction, (*succeeded, *reference))
            }
            Step::Edit { edits, if_match } => self.edit(edits, *if_match),
        }
    }

    fn wait_for(&mut self, edge: usize, micros: i64) {
        let details = &self.model.details;
        let at = match (edge, self.model.bookings.iter().rev().nth(edge % 6)) {
            (0, _) => details.starts,
            (1, _) => details.starts - i64::from(details.cutoff) * 1_000_000,
            (_, Some(known)) => known.until,
            (_, None) => return,
        };
        self.world.now = shifted(self.world.now, at + micros - self.world.now.micros());
    }

    fn book(&mut self, owner: u8, tickets: &[u32], expected: Amount) -> String {
        let tickets = &tickets[..self.model.details.kinds.len()];
        let now = self.now();
        let prediction = self.model.book(owner, tickets, expected, now);
        let at_once = self.model.shortage(owner, tickets, None).is_none();
        let total = self.model.cost(tickets);
        let id = self.world.next_booking();
        let items: Vec<_> = (0u8..)
            .map(ticket_type)
            .zip(tickets.iter().copied())
            .filter(|(_, quantity)| *quantity > 0)
            .collect();
        let selection = match tickets {
            [quantity] => TicketSelection::Quantity(*quantity),
            _ => TicketSelection::Items(items),
        };
        let answer = self.world.order(&name(owner), selection, stated_amount(total, expected));
        self.record_freed(at_once, now);
        if prediction == ExpectedAnswer::Booking(BookingState::Pending) {
            let until = now + i64::from(self.model.details.hold) * 1_000_000;
            let known = BookingModel {
                user: owner,
                tickets: tickets.to_vec(),
                total,
                until,
                state: BookingState::Pending,
                version: 0,
                refunds: BTreeMap::new(),
            };
            self.model.bookings.push(known);
            self.ids.push(id);
        }
        self.check_answer(self.ids.len().saturating_sub(1), &answer, &prediction)
    }

    fn confirm(&mut self, index: usize, number: u8, amount: Amount) -> String {
        let now = self.now();
        let expected = self.model.confirm(index, number, amount, now);
        let known = self.model.bookings.get(index).cloned();
        let at_once = known.as_ref().is_none_or(|known| {
            known.state != BookingState::Expired
                || self.model.shortage(known.user, &known.tickets, None).is_none()
        });
        let total = known.as_ref().map_or(0, |known| known.total);
        let answer = self.world.confirm(self.id(index), &transaction(number), stated_amount(total, amount));
        self.record_freed(at_once, now);
        let outcome = self.check_answer(index, &answer, &expected);
        if known.is_some_and(|known| known.state == BookingState::Expired)
            && matches!(answer, Answer::Booking(_))
        {
            return if at_once { "taken again".to_owned() } else { "taken again after freeing".to_owned() };
        }
        outcome
    }

    fn cancel(&mut self, index: usize, by: CancelActor) -> String {
        let expected = self.model.cancel(index, by, self.now());
        let actor = match by {
            CancelActor::User(number) => Actor::User(user(&name(number))),
            CancelActor::Service => service(),
            CancelActor::Admin => admin(),
            CancelActor::System => Actor::System,
        };
        let refunds = self.world.refunds.len();
        let paid =
            self.model.bookings.get(index).is_some_and(|known| matches!(known.state, BookingState::Paid(_)));
        let answer = self.world.cancel(actor, self.id(index));
        let refund_due = usize::from(paid && outcome_code(&answer) == "ok");
        assert_eq!(
            self.world.refunds.len(),
            refunds + refund_due,
            "a paid booking's cancellation records one refund"
        );
        self.check_answer(index, &answer, &expected)
    }

    fn settle(&mut self, index: usize, number: u8, (succeeded, reference): (bool, u8)) -> String {
        let expected = self.model.settle(index, number, succeeded);
        let paid = transaction(number);
        let answer = self.world.settle(self.id(index), &paid, succeeded, &payout(reference));
        if expected != ExpectedAnswer::Settled(number) {
            self.check_answer(index, &answer, &expected);
            return match expected {
                ExpectedAnswer::SameRefund(_) => "refund settled as before",
                ExpectedAnswer::RefundedWith(..) => "refund paid out already",
                _ => "no such refund",
            }
            .to_owned();
        }
        let now = self.now();
        let before = self.model.bookings[index].refunds[&number];
        self.model.record_settlement(index, number, (succeeded, reference), now);
        assert_eq!(answer, Answer::Refund(Box::new(self.world.refund(self.ids[index], &paid).clone())));
        let late = if before.own { "" } else { "late " };
        let outcome = if succeeded { "succeeded" } else { "failed" };
        let again = if before.settled.is_some() { " after it failed" } else { "" };
        format!("{late}refund settled as {outcome}{again}")
    }

    fn edit(&mut self, edits: &[Edit], if_match: Option<bool>) -> String {
        let (now, mut after, mut patch) = (self.now(), self.model.details.clone(), EventPatch::default());
        for edit in edits {
            self.apply_edit(edit, &mut after, &mut patch);
        }
        patch.if_match = if_match.map(|right| self.model.version + u32::from(!right));
        let expected = self.model.edit(&after, if_match, patch.starts_at.is_some(), now);
        let answer = self.world.edit(patch);
        if let ExpectedAnswer::Event(version) = expected
            && version != self.model.version
        {
            (self.model.details, self.model.version) = (after, version);
            self.model.record_date(now);
        }
        self.check_answer(usize::MAX, &answer, &expected)
    }

    /// Writes one edit into the model's details of the event and into the patch.
    fn apply_edit(&self, edit: &Edit, after: &mut DetailsModel, patch: &mut EventPatch) {
        let instant = |seconds: i64| shifted(self.world.now, seconds * 1_000_000);
        let kinds = after.kinds.len();
        let mut of_type = |index: usize, price: Option<i64>, capacity: Option<Option<u32>>| {
            let index = index % kinds;
            let known = &mut after.kinds[index];
            known.price = price.unwrap_or(known.price);
            known.capacity = capacity.unwrap_or(known.capacity);
            let id = ticket_type(u8::try_from(index).unwrap());
            // An edit contains each ticket type at most once, with all its changes.
            let fresh = TicketTypePatch { id, name: None, price: None, capacity: None };
            let known = patch.ticket_types.iter().position(|edit| edit.id == id);
            let index = known.unwrap_or_else(|| {
                patch.ticket_types.push(fresh);
                patch.ticket_types.len() - 1
            });
            let edit = &mut patch.ticket_types[index];
            edit.price = price.map(eur).or(edit.price);
            edit.capacity = capacity.or(edit.capacity);
        };
        match *edit {
            Edit::KindCapacity(index, capacity) => of_type(index, None, Some(capacity)),
            Edit::Price(index, price) => of_type(index, Some(price), None),
            Edit::Capacity(capacity) => {
                after.capacity = capacity;
                patch.capacity = Some(capacity);
            }
            Edit::PerBooking(limit) => {
                after.per_booking = limit;
                patch.max_tickets_per_booking = Some(limit);
            }
            Edit::PerUser(limit) => {
                after.per_user = limit;
                patch.max_tickets_per_user = Some(limit);
            }
            Edit::Hold(seconds) => {
                after.hold = seconds;
                patch.hold_seconds = Some(seconds);
            }
            Edit::CutOff(seconds) => {
                after.cutoff = seconds;
                patch.cancel_cutoff_seconds = Some(seconds);
            }
            Edit::Start(seconds) => {
                after.starts = instant(seconds).micros();
                patch.starts_at = Some(instant(seconds));
            }
            Edit::SalesStart(seconds) => {
                after.sales_start = seconds.map(|seconds| instant(seconds).micros());
                patch.sales_start_at = Some(seconds.map(instant));
            }
            Edit::SalesEnd(seconds) => {
                after.sales_end = seconds.map(|seconds| instant(seconds).micros());
                patch.sales_end_at = Some(seconds.map(instant));
            }
            Edit::Status(is) => {
                after.status = is;
                patch.status = Some(status(is));
            }
        }
    }

    /// Records the holds that were freed while a command was processed, which is only allowed if tickets were
    /// missing.
    fn record_freed(&mut self, at_once: bool, now: i64) {
        assert!(self.world.freed.is_empty() || !at_once, "freed holds although nothing was missing");
        for id in &self.world.freed {
            let index = self.ids.iter().position(|known| known == id).unwrap();
            self.model.record_expiry(index, now);
        }
    }

    /// Compares an answer with the prediction, updates the model, and returns a name for the outcome.
    fn check_answer(&mut self, index: usize, answer: &Answer, expected: &ExpectedAnswer) -> String {
        let now = self.now();
        let after = if self.world.freed.is_empty() { "" } else { " after freeing" };
        match (expected, answer) {
            (ExpectedAnswer::Booking(is), Answer::Booking(booking)) => {
                assert_eq!(**booking, *self.world.booking(self.ids[index]));
                self.model.record_state(index, *is, now);
                format!("{}{after}", booking.status())
            }
            (ExpectedAnswer::Same, Answer::Booking(booking)) => {
                assert_eq!(**booking, *self.world.booking(self.ids[index]));
                "unchanged".to_owned()
            }
            (ExpectedAnswer::Event(version), Answer::Event(event)) => {
                assert_eq!(event.details.version, *version);
                "event".to_owned()
            }
            (ExpectedAnswer::Refused(code), Answer::Refused(refusal)) => {
                assert_eq!((refusal.code(), named_refund(answer)), (*code, None));
                (*code).to_owned()
            }
            (ExpectedAnswer::Short(code, left), Answer::Refused(refusal)) => {
                assert_eq!(refusal.code(), *code);
                if let Refusal::InsufficientAvailability { available, .. } = refusal {
                    assert_eq!(available, left, "tickets left");
                }
                (*code).to_owned()
            }
            (ExpectedAnswer::RefundedWith(code, number), Answer::Refused(refusal)) => {
                assert_eq!(refusal.code(), *code);
                let key = (self.ids[index], payment(&transaction(*number)));
                assert_eq!(
                    named_refund(answer),
                    self.world.refunds.get(&key),
                    "contains the recorded refund"
                );
                let is_new = self.model.record_refund(index, *number, code, now);
                let settled = self.model.bookings[index].refunds[number].settled.is_some();
                let description = match (is_new, settled) {
                    (true, _) => "",
                    (false, false) => "the same ",
                    (false, true) => "the same settled ",
                };
                format!("{code} with {description}refund")
            }
            (ExpectedAnswer::SameRefund(number), Answer::Refund(refund)) => {
                assert_eq!(**refund, *self.world.refund(self.ids[index], &transaction(*number)));
                String::new()
            }
            (expected, answer) => panic!("expected {expected:?}, got {answer:?}"),
        }
    }

    /// Checks that the bookings and the event have the states of the model.
    fn compare(&self) {
        assert_eq!(
            self.world.event().inventory.last_at.micros(),
            self.model.last_at,
            "the date of the last entry"
        );
        assert_eq!(self.world.bookings.len(), self.ids.len());
        for (known, id) in self.model.bookings.iter().zip(&self.ids) {
            let booking = self.world.booking(*id);
            let status = match (known.state, &booking.state) {
                (BookingState::Paid(number), State::Confirmed(payment)) => {
                    assert_eq!(payment.transaction.as_str(), transaction(number));
                    BookingStatus::Confirmed
                }
                (BookingState::Paid(_), _) => BookingStatus::Confirmed,
                (BookingState::Pending, _) => BookingStatus::Pending,
                (BookingState::Cancelled, _) => BookingStatus::Cancelled,
                (BookingState::Expired, _) => BookingStatus::Expired,
            };
            assert_eq!(booking.status(), status, "{id}");
            assert_eq!(booking.version, known.version, "version of {id}");
            assert_eq!(booking.total, eur(known.total), "the price does not change");
            assert_eq!(booking.hold_expires_at.micros(), known.until, "a hold is never extended");
            assert_eq!(booking.payment_status().as_str(), known.payment_status(), "payment status of {id}");
            let refunds = self.world.refunds.keys().filter(|(refunded, _)| refunded == id).count();
            assert_eq!(refunds, known.refunds.len(), "refunds of {id}");
            for (number, refund_due) in &known.refunds {
                let refund = self.world.refund(*id, &transaction(*number));
                let (status, reference) = match refund_due.settled {
                    None => (RefundStatus::Requested, None),
                    Some((true, reference)) => (RefundStatus::Succeeded, Some(payout(reference))),
                    Some((false, reference)) => (RefundStatus::Failed, Some(payout(reference))),
                };
                let stored_reference =
                    refund.provider_reference.as_ref().map(|name| name.as_str().to_owned());
                assert_eq!((refund.status, stored_reference), (status, reference), "refund {number} of {id}");
            }
        }
        let (details, event) = (&self.model.details, self.world.event());
        assert_eq!(event.details.version, self.model.version);
        assert_eq!(
            (event.details.status, event.inventory.capacity),
            (status(details.status), details.capacity)
        );
    }
}

fn stated_amount(total: i64, amount: Amount) -> Option<domain::Money> {
    match amount {
        Amount::Omitted => None,
        Amount::Correct => Some(eur(total)),
        Amount::Wrong => Some(eur(total + 1)),
    }
}
