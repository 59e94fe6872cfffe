//! Each call against the entries that it caused, and against its neighbours in time.

use std::collections::{BTreeMap, BTreeSet};

use super::{Call, CallResult, FinalState, LedgerRow, Operation, Outcome, payments};

/// What the calls and the ledger say against each other, in words; empty where nothing does.
///
/// - An answered call has its entries, a refused or failed one has none, of an unknown one there may be some;
///   nothing else is in the ledger but what the program did by itself.
/// - A call that ended before another began stands before it in the ledger of their event; whoever looks sees
///   what was answered before, and what was left at that entry.
/// - Under one key one booking is made, and every answer is the same.
/// - Each captured payment pays for a booking or is given back, once, in full.
/// - Nobody changes what belongs to somebody else.
pub fn check(calls: &[Call], books: &FinalState) -> Vec<String> {
    let mut by_request: BTreeMap<&str, Vec<&LedgerRow>> = BTreeMap::new();
    for line in &books.entries {
        by_request.entry(&line.request).or_default().push(line);
    }
    let known: BTreeMap<&str, &Call> = calls.iter().map(|call| (call.request.as_str(), call)).collect();
    let mut wrong = Vec::new();
    if known.len() != calls.len() {
        wrong.push("two calls have one name".to_owned());
    }
    for call in calls {
        let lines = by_request.get(call.request.as_str()).map_or(&[][..], Vec::as_slice);
        let about = |what: String| {
            format!("{} ({:?}, heard {:?}): {what}", call.request, call.operation, call.outcome)
        };
        wrong.extend(answer(call, lines, books).into_iter().map(about));
    }
    for line in &books.entries {
        let about = |what: String| format!("{} entry {} ({}): {what}", line.event, line.seq, line.kind);
        wrong.extend(origin(line, known.get(line.request.as_str()).copied(), books).map(about));
    }
    wrong.extend(order(&books.entries, &known));
    wrong.extend(looks(calls, &books.entries, &by_request));
    wrong.extend(keys(calls));
    wrong.extend(payments::check(calls, books));
    wrong
}

/// Whether the program did it by itself: a hold whose time had passed, or the end of a cancelled event.
fn own_doing(line: &LedgerRow) -> bool {
    line.actor == "system"
        && matches!(line.kind.as_str(), "booking.expired" | "booking.cancelled" | "refund.requested")
}

/// A call's answer against its own entries.
fn answer(call: &Call, lines: &[&LedgerRow], books: &FinalState) -> Vec<String> {
    // On the way to its answer a call may have overdue holds freed; they are not its own.
    let kinds: Vec<&str> =
        lines.iter().filter(|line| !own_doing(line)).map(|line| line.kind.as_str()).collect();
    let possible: &[&[&str]] = match (&call.operation, &call.outcome) {
        (Operation::Book { .. }, Outcome::Done(told)) if !told.replayed => &[&["booking.created"]],
        (Operation::Book { .. }, Outcome::Unknown) => &[&[], &["booking.created"]],
        (Operation::Confirm { .. }, Outcome::Done(_)) => &[&[], &["booking.confirmed"]],
        (Operation::Confirm { .. }, Outcome::Refused { refund: Some(_), .. }) => {
            &[&[], &["refund.requested"]]
        }
        (Operation::Confirm { .. }, Outcome::Unknown) => {
            &[&[], &["booking.confirmed"], &["refund.requested"]]
        }
        (Operation::Cancel { .. }, Outcome::Done(_)) => {
            &[&["booking.cancelled"], &["booking.cancelled", "refund.requested"]]
        }
        (Operation::Cancel { .. }, Outcome::Unknown) => {
            &[&[], &["booking.cancelled"], &["booking.cancelled", "refund.requested"]]
        }
        (Operation::Settle { .. }, Outcome::Done(_) | Outcome::Unknown) => &[&[], &["refund.settled"]],
        (Operation::Edit, Outcome::Done(_) | Outcome::Unknown) => {
            &[&[], &["event.created"], &["event.updated"], &["event.cancelled"]]
        }
        (Operation::Book { .. }, Outcome::Done(_))
        | (Operation::ReadAvailability, _)
        | (_, Outcome::Refused { .. } | Outcome::Failed) => &[&[]],
    };
    let mut wrong = Vec::new();
    if !possible.contains(&kinds.as_slice()) {
        wrong.push(format!("the ledger has {kinds:?} of it"));
    }
    if let Outcome::Done(told) = &call.outcome {
        wrong.extend(told_truly(&call.operation, told, lines, books));
    }
    wrong
}

/// What an answer says against what stands.
fn told_truly(
    ask: &Operation,
    told: &CallResult,
    lines: &[&LedgerRow],
    books: &FinalState,
) -> Option<String> {
    let own = lines.iter().find(|line| !own_doing(line));
    let wanted = match ask {
        Operation::Confirm { booking, .. } | Operation::Cancel { booking } => Some(booking),
        Operation::Book { .. } => told.booking.as_ref(),
        Operation::Settle { .. } | Operation::Edit | Operation::ReadAvailability => return None,
    };
    let (Some(id), Some(status)) = (wanted, told.status.as_deref()) else {
        return Some("the answer shows no booking".to_owned());
    };
    if told.booking.as_ref() != Some(id) || own.is_some_and(|line| line.booking.as_ref() != Some(id)) {
        return Some("the answer is about another booking".to_owned());
    }
    let Some(stands) = books.bookings.get(id) else {
        return Some(format!("{id} was acknowledged and is lost"));
    };
    let status_asked = match ask {
        Operation::Book { .. } => "pending",
        Operation::Confirm { .. } => "confirmed",
        Operation::Cancel { .. }
        | Operation::Settle { .. }
        | Operation::Edit
        | Operation::ReadAvailability => "cancelled",
    };
    if status != status_asked {
        return Some(format!("the answer shows it {status}, not {status_asked}"));
    }
    match ask {
        Operation::Book { user, quantity } if *user != stands.user || *quantity != stands.quantity => {
            Some(format!("{id} is another order: {stands:?}"))
        }
        Operation::Cancel { .. } if stands.status != "cancelled" => {
            Some(format!("{id} is {} again", stands.status))
        }
        Operation::Confirm { amount: Some(amount), .. } if *amount != stands.total => {
            Some(format!("{id} costs {} and was paid with {amount}", stands.total))
        }
        Operation::Confirm { transaction, .. } if stands.transaction.as_ref() != Some(transaction) => {
            Some(format!("{id} does not know that payment"))
        }
        _ => None,
    }
}

/// An entry against the call that caused it.
fn origin(line: &LedgerRow, call: Option<&Call>, books: &FinalState) -> Option<String> {
    let Some(call) = call else {
        return (!own_doing(line)).then(|| format!("nobody asked for it: {}", line.request));
    };
    if line.actor != call.actor && !own_doing(line) {
        return Some(format!("is by {}, but {} asked", line.actor, call.actor));
    }
    let user = line.actor.strip_prefix("user:")?;
    let booking = books.bookings.get(line.booking.as_ref()?)?;
    if booking.user != user {
        return Some(format!("changes what belongs to {}", booking.user));
    }
    let paid = line.kind == "booking.cancelled" && line.from.as_deref() == Some("confirmed");
    // Not by the date of the entry, which is raised to the one before it.
    let late =
        booking.cancelled_at.zip(books.cut_offs.get(&line.event)).is_some_and(|(at, until)| at > *until);
    (paid && late).then(|| "gives back a paid booking after the cut-off".to_owned())
}

/// Real time: what ended before something else began stands before it.
fn order(lines: &[LedgerRow], known: &BTreeMap<&str, &Call>) -> Vec<String> {
    let mut begun: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for line in lines.iter().filter(|line| !own_doing(line)) {
        let Some(call) = known.get(line.request.as_str()) else { continue };
        let (latest, seq) = begun.entry(&line.event).or_insert((call.start, line.seq));
        if call.end.is_some_and(|end| end < *latest) {
            wrong.push(format!(
                "{} entry {} was answered before entry {seq}, before it, was asked for",
                line.event, line.seq
            ));
        }
        if call.start > *latest {
            (*latest, *seq) = (call.start, line.seq);
        }
    }
    wrong
}

/// Whoever looks sees all that was answered before, nothing that was asked for later, and the truth.
fn looks(calls: &[Call], lines: &[LedgerRow], by_request: &BTreeMap<&str, Vec<&LedgerRow>>) -> Vec<String> {
    let left: BTreeMap<(&str, u64), u32> =
        lines.iter().map(|line| ((line.event.as_str(), line.seq), line.available_after)).collect();
    // Per event, in the order of their ends, the highest number that had been answered by then.
    let mut answered: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    for call in calls.iter().filter(|call| matches!(call.outcome, Outcome::Done(_))) {
        let Some(end) = call.end else { continue };
        for line in by_request.get(call.request.as_str()).into_iter().flatten() {
            answered.entry(&line.event).or_default().push((end, line.seq));
        }
    }
    for marks in answered.values_mut() {
        marks.sort_unstable();
        let mut highest = 0;
        for (_, seq) in marks {
            highest = highest.max(*seq);
            *seq = highest;
        }
    }
    let mut wrong = Vec::new();
    for call in calls {
        let Outcome::Done(CallResult { availability: Some((seq, available)), .. }) = &call.outcome else {
            continue;
        };
        let Some(event) = call.event.as_deref() else { continue };
        let marks = answered.get(event).map_or(&[][..], Vec::as_slice);
        let before = marks.partition_point(|(end, _)| *end < call.start);
        let due = before.checked_sub(1).and_then(|place| marks.get(place)).map_or(0, |(_, seq)| *seq);
        if *seq < due {
            wrong.push(format!("{} saw {event} at {seq}, but {due} had been answered", call.request));
        }
        if left.get(&(event, *seq)) != Some(available) {
            wrong.push(format!(
                "{} saw {available} left of {event} at {seq}, which is not true",
                call.request
            ));
        }
    }
    wrong
}

/// Calls under one key: one booking, one answer, and no answer for another question.
fn keys(calls: &[Call]) -> Vec<String> {
    let mut groups: BTreeMap<(&str, &str), Vec<&Call>> = BTreeMap::new();
    for call in calls {
        if let Some((scope, key, _)) = &call.key {
            groups.entry((scope, key)).or_default().push(call);
        }
    }
    let mut wrong = Vec::new();
    for ((scope, key), calls) in groups {
        let done = calls.iter().filter_map(|call| match (&call.outcome, &call.key) {
            (Outcome::Done(told), Some((_, _, digest))) => Some((*digest, told.booking.as_deref())),
            _ => None,
        });
        let answers: BTreeSet<(u64, Option<&str>)> = done.collect();
        if answers.len() > 1 {
            wrong.push(format!("the key {key} of {scope} has several answers: {answers:?}"));
        }
        let fresh = |call: &&&Call| matches!(&call.outcome, Outcome::Done(told) if !told.replayed);
        if calls.iter().filter(fresh).count() > 1 {
            wrong.push(format!("the key {key} of {scope} was carried out twice"));
        }
    }
    wrong
}
