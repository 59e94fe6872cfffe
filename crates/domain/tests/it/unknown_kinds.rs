//! Ledger entries of kinds that this version does not know, because a later version wrote them.

use domain::{BookingId, Entry, EntryKind, LedgerKind, LedgerStatus, Timestamp};

use crate::rows::{BookingIds, Rows, populated};

const UNKNOWN: &str = "booking.transferred";

fn unknown(name: &str) -> LedgerKind {
    LedgerKind::parse(name, Some("confirmed"), Some("inTransfer")).unwrap().0
}

#[test]
fn known_kinds_have_known_statuses() {
    for kind in EntryKind::ALL {
        let parsed = LedgerKind::parse(kind.as_str(), Some("pending"), None).unwrap();
        assert_eq!(parsed, (LedgerKind::Known(*kind), Some(LedgerStatus::Pending), None));
        assert_eq!((parsed.0.known(), parsed.0.as_str()), (Some(*kind), kind.as_str()));
        assert!(LedgerKind::parse(kind.as_str(), Some("inTransfer"), None).is_err());
        assert!(LedgerKind::parse(kind.as_str(), None, Some("inTransfer")).is_err());
    }
}

#[test]
fn unknown_kinds_are_carried_with_their_statuses() {
    let (rows, _) = populated();
    let entry = |from, to| {
        let (kind, from, to) = LedgerKind::parse(UNKNOWN, from, to).unwrap();
        Entry { kind, from, to, ..rows.entries[0].clone() }
    };
    let carried = entry(Some("confirmed"), Some("inTransfer"));
    assert_eq!((carried.kind.to_string().as_str(), carried.kind.known()), (UNKNOWN, None));
    assert_eq!((carried.from_status(), carried.to_status()), (Some("confirmed"), Some("inTransfer")));
    assert_eq!((carried.from, carried.to), (None, None));
    assert_eq!((entry(None, None).from_status(), entry(None, None).to_status()), (None, None));
    let known = &rows.entries[1];
    assert_eq!((known.from_status(), known.to_status()), (None, Some("pending")));
}

#[test]
fn a_kind_has_the_characters_of_a_kind() {
    for good in ["a", "booking.v2_moved-back", &"x".repeat(64)] {
        assert_eq!(LedgerKind::parse(good, None, None).unwrap().0.as_str(), good);
    }
    for bad in ["", "Booking.sold", "no such word", "booking/sold", "gebucht.ü", "a\n", &"x".repeat(65)] {
        assert!(LedgerKind::parse(bad, None, None).is_err(), "{bad:?}");
    }
    for bad in ["", "no such word", "a>", &"x".repeat(65)] {
        assert!(LedgerKind::parse(UNKNOWN, Some(bad), None).is_err(), "{bad:?}");
        assert!(LedgerKind::parse(UNKNOWN, None, Some(bad)).is_err(), "{bad:?}");
    }
}

/// Appends an entry of an unknown kind, of this booking or of the event.
fn append(rows: &mut Rows, booking: Option<BookingId>) {
    let seq = u64::try_from(rows.entries.len()).unwrap() + 1;
    let previous_seq = booking.map(|id| rows.booking(id).last_seq);
    let last = rows.entries.last().unwrap().clone();
    let kind = unknown(UNKNOWN);
    let entry =
        Entry { seq, kind, booking_id: booking, refund_id: None, from: None, to: None, previous_seq, ..last };
    rows.entries.push(entry);
    rows.event.inventory.seq = seq;
    if let Some(id) = booking {
        rows.booking(id).last_seq = seq;
    }
}

/// The violations that the audit finds after an entry of an unknown kind and this edit.
fn violations_after(of_booking: bool, edit: impl Fn(&mut Rows, &BookingIds)) -> Vec<String> {
    let (mut rows, ids) = populated();
    append(&mut rows, of_booking.then_some(ids.paid));
    edit(&mut rows, &ids);
    let report = rows.report();
    assert!(!report.is_clean());
    report.violations
}

#[test]
fn the_audit_counts_unknown_kinds_and_does_not_call_them_violations() {
    for of_booking in [false, true] {
        assert_eq!(violations_after(of_booking, |_, _| {}), Vec::<String>::new());
    }
    let (mut rows, ids) = populated();
    assert!(rows.report().is_clean());
    append(&mut rows, None);
    append(&mut rows, Some(ids.paid));
    rows.entries.last_mut().unwrap().kind = unknown("event.moved");
    let report = rows.report();
    assert_eq!(report.entries, u64::try_from(rows.entries.len()).unwrap());
    let kinds: Vec<_> = report.unknown_kinds.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
    assert_eq!(kinds, [(UNKNOWN, 1), ("event.moved", 1)]);
    // The number of kinds is bounded.
    for number in 0..200 {
        append(&mut rows, None);
        rows.entries.last_mut().unwrap().kind = unknown(&format!("kind-{number}"));
    }
    let kinds = rows.report().unknown_kinds;
    assert_eq!((kinds.len(), kinds["other kinds"]), (101, 102));
}

/// What an entry of an unknown kind may explain is not called a violation.
#[test]
fn the_audit_does_not_verify_what_an_unknown_kind_may_explain() {
    let of_the_event: [fn(&mut Rows, &BookingIds); 7] = [
        |rows, _| rows.event.inventory.held += 1,
        |rows, _| rows.event.inventory.types[0].sold += 1,
        |rows, _| rows.event.inventory.capacity -= 1,
        |rows, _| rows.event.inventory.tallies.revenue += 1,
        |rows, _| std::sync::Arc::make_mut(&mut rows.event.details).version += 1,
        |rows, _| rows.users[0].1 += 1,
        |rows, _| rows.entries.last_mut().unwrap().available_after += 3,
    ];
    for edit in of_the_event {
        assert_eq!(violations_after(false, edit), Vec::<String>::new());
    }
    let of_the_booking: [fn(&mut Rows, &BookingIds); 4] = [
        |rows, ids| rows.booking(ids.paid).state = rows.booking(ids.expired).state.clone(),
        |rows, ids| rows.booking(ids.paid).version += 1,
        |rows, ids| rows.booking(ids.paid).items = rows.booking(ids.held).items.clone(),
        |rows, ids| {
            let booking = rows.booking(ids.paid);
            let reprice = |item: &domain::Item| domain::Item {
                unit_price: item.unit_price.times(2).unwrap(),
                ..item.clone()
            };
            booking.items = domain::Items::new(booking.items.iter().map(reprice).collect()).unwrap();
        },
    ];
    for edit in of_the_booking {
        assert_eq!(violations_after(true, edit), Vec::<String>::new());
    }
}

#[test]
fn the_audit_verifies_what_an_unknown_kind_cannot_explain() {
    let check = |text: &str, edit: fn(&mut Rows, &BookingIds)| {
        let violations = violations_after(true, edit);
        assert!(violations.iter().any(|line| line.contains(text)), "no “{text}”: {violations:#?}");
    };
    // Numbers and dates.
    check("the ledger should continue with entry 6", |rows, _| drop(rows.entries.remove(5)));
    check("seq is stored as", |rows, _| rows.event.inventory.seq += 1);
    check("is dated before the previous entry", |rows, _| {
        rows.entries.last_mut().unwrap().at = Timestamp::from_micros(0).unwrap();
    });
    check("as its previous entry, not", |rows, _| rows.entries.last_mut().unwrap().previous_seq = Some(1));
    check("as its last, but that is", |rows, ids| rows.booking(ids.paid).last_seq -= 1);
    // Entries of known kinds, and bookings that have no other entries.
    check("tickets after", |rows, _| rows.entry(EntryKind::BookingExpired).available_after += 1);
    check("is expired, but its ledger has pending", |rows, ids| {
        rows.booking(ids.held).state = rows.booking(ids.expired).state.clone();
    });
    check("refunds", |rows, _| {
        let refund = rows.refund("back");
        refund.amount = refund.amount.times(2).unwrap();
    });
}

/// An entry of an unknown kind may have paused sales; the next known status is checked again.
#[test]
fn sales_are_checked_again_from_the_next_known_status() {
    let (rows, _) = populated();
    let booked = |before: &[(&str, Option<LedgerStatus>)]| {
        let mut rows = rows.clone();
        let created = rows.entries.remove(1);
        rows.entries.truncate(1);
        for (kind, to) in before {
            let (kind, ..) = LedgerKind::parse(kind, None, None).unwrap();
            rows.entries.push(Entry { kind, to: *to, quantity: 0, ..rows.entries[0].clone() });
        }
        rows.entries.push(created);
        rows.report().violations.iter().any(|line| line.contains("while the event is paused"))
    };
    let paused = ("event.updated", Some(LedgerStatus::Paused));
    assert!(booked(&[paused]));
    assert!(!booked(&[paused, ("event.reopened", None)]));
    assert!(booked(&[("event.reopened", None), paused]));
}
