//! Tests of the history checks: a consistent history passes, and every contradiction is found.

use testkit::history::{
    BookingRow, Call, CallResult, FinalState, LedgerRow, Operation, Outcome, RefundRow, check, check_stream,
};

/// A history and its final state.
type Case = (Vec<Call>, FinalState);

/// A contradiction, as a change of a consistent history.
type Contradiction = (&'static str, fn(&mut Case));

fn call(
    request: &str,
    actor: &str,
    operation: Operation,
    (start, end): (u64, u64),
    outcome: Outcome,
) -> Call {
    let (request, actor) = (request.to_owned(), actor.to_owned());
    Call { request, actor, event: Some("e".to_owned()), operation, key: None, start, end: Some(end), outcome }
}

fn done(booking: &str, status: &str) -> Outcome {
    let (booking, status) = (Some(booking.to_owned()), Some(status.to_owned()));
    Outcome::Done(CallResult { booking, status, ..CallResult::default() })
}

fn row(
    seq: u64,
    kind: &str,
    booking: &str,
    (request, actor): (&str, &str),
    available_after: u32,
) -> LedgerRow {
    LedgerRow {
        event: "e".to_owned(),
        seq,
        kind: kind.to_owned(),
        booking: Some(booking.to_owned()),
        refund: kind.starts_with("refund").then(|| "r".to_owned()),
        quantity: 1,
        from: None,
        available_after,
        actor: actor.to_owned(),
        request: request.to_owned(),
        at: 0,
    }
}

fn booking_row(user: &str, status: &str, transaction: Option<&str>) -> BookingRow {
    let event = "e".to_owned();
    let user = user.to_owned();
    let status = status.to_owned();
    let cancelled_at = (status == "cancelled").then_some(0);
    let transaction = transaction.map(str::to_owned);
    BookingRow { event, user, status, quantity: 1, total: 100, transaction, cancelled_at }
}

/// Ada books, pays and reads the availability. Ben books twice under one key and cancels; a payment of his is
/// late. One order gets no response, and one is refused.
fn consistent_history() -> Case {
    let book = |user: &str| Operation::Book { user: user.to_owned(), quantity: 1 };
    let pay = |booking: &str, transaction: &str| Operation::Confirm {
        booking: booking.to_owned(),
        transaction: transaction.to_owned(),
        amount: Some(100),
    };
    let late = Outcome::Refused { code: "invalid_state".to_owned(), refund: Some("r".to_owned()) };
    let seen = Outcome::Done(CallResult { availability: Some((2, 8)), ..CallResult::default() });
    let key = Some(("ben".to_owned(), "k".to_owned(), 1));
    let again = CallResult {
        booking: Some("b2".to_owned()),
        status: Some("pending".to_owned()),
        replayed: true,
        ..CallResult::default()
    };
    let calls = vec![
        call("q1", "user:ada", book("ada"), (1, 2), done("b1", "pending")),
        call("q2", "service:gateway", pay("b1", "t1"), (3, 4), done("b1", "confirmed")),
        call("q3", "system", Operation::ReadAvailability, (5, 6), seen),
        Call { key: key.clone(), ..call("q4", "user:ben", book("ben"), (7, 8), done("b2", "pending")) },
        Call { key, ..call("q5", "user:ben", book("ben"), (9, 10), Outcome::Done(again)) },
        call(
            "q6",
            "user:ben",
            Operation::Cancel { booking: "b2".to_owned() },
            (11, 12),
            done("b2", "cancelled"),
        ),
        call("q7", "service:gateway", pay("b2", "t2"), (13, 14), late),
        Call { end: None, ..call("q8", "user:ada", book("ada"), (15, 0), Outcome::Unknown) },
        call(
            "q9",
            "user:ada",
            book("ada"),
            (16, 17),
            Outcome::Refused { code: "sold_out".to_owned(), refund: None },
        ),
    ];
    let rows = vec![
        row(1, "booking.created", "b1", ("q1", "user:ada"), 8),
        row(2, "booking.confirmed", "b1", ("q2", "service:gateway"), 8),
        row(3, "booking.created", "b2", ("q4", "user:ben"), 7),
        row(4, "booking.cancelled", "b2", ("q6", "user:ben"), 8),
        row(5, "refund.requested", "b2", ("q7", "service:gateway"), 8),
        row(6, "booking.created", "b3", ("q8", "user:ada"), 7),
        row(7, "booking.expired", "b3", ("sweep_1", "system"), 8),
    ];
    let bookings = [
        ("b1".to_owned(), booking_row("ada", "confirmed", Some("t1"))),
        ("b2".to_owned(), booking_row("ben", "cancelled", None)),
        ("b3".to_owned(), booking_row("ada", "expired", None)),
    ];
    let refund = RefundRow { booking: "b2".to_owned(), transaction: "t2".to_owned(), amount: 100 };
    let refunds = [("r".to_owned(), refund)].into();
    (
        calls,
        FinalState {
            entries: rows,
            bookings: bookings.into(),
            refunds,
            cut_offs: [("e".to_owned(), 10)].into(),
        },
    )
}

#[test]
fn a_consistent_history_passes() {
    let (calls, state) = consistent_history();
    assert_eq!(check(&calls, &state), Vec::<String>::new());
}

fn late_refund(state: &mut FinalState) -> &mut RefundRow {
    state.refunds.get_mut("r").expect("the refund of the late payment")
}

fn booking_of_ada(state: &mut FinalState) -> &mut BookingRow {
    state.bookings.get_mut("b1").expect("Ada's booking")
}

const CONTRADICTIONS: &[Contradiction] = &[
    ("an acknowledged order is not in the ledger", |(_, state)| drop(state.entries.remove(0))),
    ("an acknowledged booking does not exist", |(_, state)| drop(state.bookings.remove("b1"))),
    ("a refused order is in the ledger", |(_, state)| {
        state.entries.push(row(8, "booking.created", "b1", ("q9", "user:ada"), 7));
    }),
    ("an acknowledged cancellation is undone", |(_, state)| {
        state.bookings.insert("b2".to_owned(), booking_row("ben", "confirmed", None));
    }),
    ("an order is executed twice", |(_, state)| {
        state.entries.push(row(8, "booking.created", "b4", ("q1", "user:ada"), 7));
    }),
    ("no call caused a change", |(_, state)| state.entries[2].request = "q99".into()),
    ("a change has another actor", |(_, state)| state.entries[0].actor = "user:ben".into()),
    ("a booking belongs to another user", |(_, state)| {
        state.bookings.insert("b1".to_owned(), booking_row("ben", "confirmed", Some("t1")));
    }),
    ("the order of the ledger contradicts real time", |(calls, _)| {
        (calls[3].start, calls[3].end) = (0, Some(0));
    }),
    ("a read is stale", |(calls, state)| {
        calls[2].outcome = Outcome::Done(CallResult {
            availability: Some((1, state.entries[0].available_after)),
            ..CallResult::default()
        });
    }),
    ("a read returns a wrong number", |(calls, _)| {
        calls[2].outcome = Outcome::Done(CallResult { availability: Some((2, 3)), ..CallResult::default() });
    }),
    ("a key has two results", |(calls, _)| calls[4].outcome = done("b1", "pending")),
    ("a payment is refunded twice", |(_, state)| {
        let again = state.refunds["r"].clone();
        state.refunds.insert("r2".to_owned(), again);
    }),
    ("a late payment is not refunded", |(_, state)| state.refunds.clear()),
    ("a refund is too small", |(_, state)| late_refund(state).amount = 99),
    ("a payment that was not captured is refunded", |(_, state)| {
        late_refund(state).transaction = "t9".into();
    }),
    ("a payment pays for a booking and is refunded", |(_, state)| {
        let (booking, transaction) = ("b1".to_owned(), "t1".to_owned());
        state.refunds.insert("r2".to_owned(), RefundRow { booking, transaction, amount: 100 });
    }),
    ("a wrong amount is accepted", |(_, state)| booking_of_ada(state).total = 200),
    ("an accepted payment is lost", |(_, state)| {
        booking_of_ada(state).transaction = None;
    }),
    ("a paid booking is cancelled after the cut-off", |(_, state)| {
        state.entries[3].from = Some("confirmed".to_owned());
        state.bookings.get_mut("b2").expect("Ben's booking").cancelled_at = Some(11);
    }),
    ("two calls have the same request id", |(calls, _)| calls[8].request = "q8".into()),
];

#[test]
fn every_inconsistent_history_is_rejected() {
    for (what, apply) in CONTRADICTIONS {
        let mut case = consistent_history();
        apply(&mut case);
        assert_ne!(check(&case.0, &case.1), Vec::<String>::new(), "{what}");
    }
}

/// The ledger of an event, which is also its complete stream.
fn two_entries() -> Vec<LedgerRow> {
    let entry = |seq| row(seq, "booking.created", "b", ("req", "user:ada"), 1);
    vec![entry(1), entry(2)]
}

#[test]
fn a_stream_is_a_prefix_of_every_ledger_and_finally_complete() {
    let ledger = two_entries();
    for published in 0..=2 {
        assert_eq!(check_stream(&ledger, &ledger[..published], false), Vec::<String>::new());
        assert_eq!(check_stream(&ledger, &ledger[..published], true).len(), 2 - published);
    }
}

#[test]
fn every_inconsistent_stream_is_rejected() {
    type Contradiction = (&'static str, fn(&mut Vec<LedgerRow>));
    let contradictions: [Contradiction; 5] = [
        ("twice", |messages| messages.push(messages[1].clone())),
        ("out of order", |messages| messages.reverse()),
        ("a gap", |messages| drop(messages.remove(0))),
        ("other content", |messages| messages[1].request = "other".to_owned()),
        ("an unknown event", |messages| messages[0].event = "f".to_owned()),
    ];
    for (what, apply) in contradictions {
        let mut messages = two_entries();
        apply(&mut messages);
        assert_ne!(check_stream(&two_entries(), &messages, false), Vec::<String>::new(), "{what}");
    }
}
