//! Tests of the judge of histories: an honest one passes, and every lie is noticed.

use testkit::history::{
    BookingRow, Call, CallResult, FinalState, LedgerRow, Operation, Outcome, RefundRow, check, check_stream,
};

/// A history, and what stands at its end.
type Case = (Vec<Call>, FinalState);

/// A lie, as a change of an honest history.
type Lie = (&'static str, fn(&mut Case));

fn call(request: &str, actor: &str, ask: Operation, (start, end): (u64, u64), outcome: Outcome) -> Call {
    let (request, actor) = (request.to_owned(), actor.to_owned());
    Call {
        request,
        actor,
        event: Some("e".to_owned()),
        operation: ask,
        key: None,
        start,
        end: Some(end),
        outcome,
    }
}

fn told(booking: &str, status: &str) -> Outcome {
    let (booking, status) = (Some(booking.to_owned()), Some(status.to_owned()));
    Outcome::Done(CallResult { booking, status, ..CallResult::default() })
}

fn line(
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

fn booked(user: &str, status: &str, transaction: Option<&str>) -> BookingRow {
    let (event, user, status) = ("e".to_owned(), user.to_owned(), status.to_owned());
    let cancelled_at = (status == "cancelled").then_some(0);
    let transaction = transaction.map(str::to_owned);
    BookingRow { event, user, status, quantity: 1, total: 100, transaction, cancelled_at }
}

/// Ada books, pays and looks; Ben books under a key, twice, and gives it up; a payment of his comes late, and one
/// order is never answered.
fn honest() -> Case {
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
        call("q1", "user:ada", book("ada"), (1, 2), told("b1", "pending")),
        call("q2", "service:gateway", pay("b1", "t1"), (3, 4), told("b1", "confirmed")),
        call("q3", "system", Operation::ReadAvailability, (5, 6), seen),
        Call { key: key.clone(), ..call("q4", "user:ben", book("ben"), (7, 8), told("b2", "pending")) },
        Call { key, ..call("q5", "user:ben", book("ben"), (9, 10), Outcome::Done(again)) },
        call(
            "q6",
            "user:ben",
            Operation::Cancel { booking: "b2".to_owned() },
            (11, 12),
            told("b2", "cancelled"),
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
    let lines = vec![
        line(1, "booking.created", "b1", ("q1", "user:ada"), 8),
        line(2, "booking.confirmed", "b1", ("q2", "service:gateway"), 8),
        line(3, "booking.created", "b2", ("q4", "user:ben"), 7),
        line(4, "booking.cancelled", "b2", ("q6", "user:ben"), 8),
        line(5, "refund.requested", "b2", ("q7", "service:gateway"), 8),
        line(6, "booking.created", "b3", ("q8", "user:ada"), 7),
        line(7, "booking.expired", "b3", ("sweep_1", "system"), 8),
    ];
    let bookings = [
        ("b1".to_owned(), booked("ada", "confirmed", Some("t1"))),
        ("b2".to_owned(), booked("ben", "cancelled", None)),
        ("b3".to_owned(), booked("ada", "expired", None)),
    ];
    let refund = RefundRow { booking: "b2".to_owned(), transaction: "t2".to_owned(), amount: 100 };
    let refunds = [("r".to_owned(), refund)].into();
    (
        calls,
        FinalState {
            entries: lines,
            bookings: bookings.into(),
            refunds,
            cut_offs: [("e".to_owned(), 10)].into(),
        },
    )
}

#[test]
fn a_consistent_history_passes() {
    let (calls, books) = honest();
    assert_eq!(check(&calls, &books), Vec::<String>::new());
}

fn refund(books: &mut FinalState) -> &mut RefundRow {
    books.refunds.get_mut("r").expect("the refund of the late payment")
}

fn first(books: &mut FinalState) -> &mut BookingRow {
    books.bookings.get_mut("b1").expect("Ada's booking")
}

const LIES: &[Lie] = &[
    ("an acknowledged order is not in the ledger", |(_, books)| drop(books.entries.remove(0))),
    ("an acknowledged booking is gone", |(_, books)| drop(books.bookings.remove("b1"))),
    ("a refused order is in the ledger", |(_, books)| {
        books.entries.push(line(8, "booking.created", "b1", ("q9", "user:ada"), 7));
    }),
    ("an acknowledged cancellation is undone", |(_, books)| {
        books.bookings.insert("b2".to_owned(), booked("ben", "confirmed", None));
    }),
    ("an order is carried out twice", |(_, books)| {
        books.entries.push(line(8, "booking.created", "b4", ("q1", "user:ada"), 7));
    }),
    ("nobody asked for a change", |(_, books)| books.entries[2].request = "q99".into()),
    ("a change is by somebody else", |(_, books)| books.entries[0].actor = "user:ben".into()),
    ("a booking belongs to somebody else", |(_, books)| {
        books.bookings.insert("b1".to_owned(), booked("ben", "confirmed", Some("t1")));
    }),
    ("the order of the ledger is not that of time", |(calls, _)| {
        (calls[3].start, calls[3].end) = (0, Some(0));
    }),
    ("somebody sees the past", |(calls, books)| {
        calls[2].outcome = Outcome::Done(CallResult {
            availability: Some((1, books.entries[0].available_after)),
            ..CallResult::default()
        });
    }),
    ("somebody sees what never was", |(calls, _)| {
        calls[2].outcome = Outcome::Done(CallResult { availability: Some((2, 3)), ..CallResult::default() });
    }),
    ("a key has two answers", |(calls, _)| calls[4].outcome = told("b1", "pending")),
    ("a payment is given back twice", |(_, books)| {
        let again = books.refunds["r"].clone();
        books.refunds.insert("r2".to_owned(), again);
    }),
    ("a late payment is not given back", |(_, books)| books.refunds.clear()),
    ("too little is given back", |(_, books)| refund(books).amount = 99),
    ("what nobody paid is given back", |(_, books)| {
        refund(books).transaction = "t9".into();
    }),
    ("a payment buys a booking and is given back", |(_, books)| {
        let (booking, transaction) = ("b1".to_owned(), "t1".to_owned());
        books.refunds.insert("r2".to_owned(), RefundRow { booking, transaction, amount: 100 });
    }),
    ("a wrong amount is accepted", |(_, books)| first(books).total = 200),
    ("an accepted payment is forgotten", |(_, books)| {
        first(books).transaction = None;
    }),
    ("a paid booking is given back after the cut-off", |(_, books)| {
        books.entries[3].from = Some("confirmed".to_owned());
        books.bookings.get_mut("b2").expect("Ben's booking").cancelled_at = Some(11);
    }),
    ("two calls have one name", |(calls, _)| calls[8].request = "q8".into()),
];

#[test]
fn every_inconsistent_history_is_rejected() {
    for (what, tell) in LIES {
        let mut case = honest();
        tell(&mut case);
        assert_ne!(check(&case.0, &case.1), Vec::<String>::new(), "{what}");
    }
}

/// The ledger of an event, and what is told of it.
fn two_entries() -> Vec<LedgerRow> {
    let entry = |seq| line(seq, "booking.created", "b", ("req", "user:ada"), 1);
    vec![entry(1), entry(2)]
}

#[test]
fn a_stream_is_a_prefix_of_every_ledger_and_finally_complete() {
    let ledger = two_entries();
    for told in 0..=2 {
        assert_eq!(check_stream(&ledger, &ledger[..told], false), Vec::<String>::new());
        assert_eq!(check_stream(&ledger, &ledger[..told], true).len(), 2 - told);
    }
}

#[test]
fn every_inconsistent_stream_is_rejected() {
    type Lie = (&'static str, fn(&mut Vec<LedgerRow>));
    let lies: [Lie; 5] = [
        ("twice", |told| told.push(told[1].clone())),
        ("out of order", |told| told.reverse()),
        ("a gap", |told| drop(told.remove(0))),
        ("something else", |told| told[1].request = "other".to_owned()),
        ("of no ledger", |told| told[0].event = "f".to_owned()),
    ];
    for (lie, tell) in lies {
        let mut told = two_entries();
        tell(&mut told);
        assert_ne!(check_stream(&two_entries(), &told, false), Vec::<String>::new(), "{lie}");
    }
}
