//! Checks each call against the entries that it caused, and against the calls before and after it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Call, CallResult, FinalState, LedgerRow, Operation, Outcome, payments};

/// The contradictions between the calls and the ledger, as text; empty if there are none.
///
/// - A successful call has its entries, a refused or failed one has none, and an unknown one may have some.
///   All other entries were written by the program itself.
/// - Of two calls, the one that ended before the other began is first in the ledger of their event. A read of
///   the availability includes all changes that were acknowledged before, and reports the tickets left at
///   that entry.
/// - Calls under one idempotency key create one booking and get one result.
/// - Each captured payment pays for a booking or is refunded, once, in full.
/// - No user changes the bookings of another user.
pub fn check(calls: &[Call], state: &FinalState) -> Vec<String> {
    let mut by_request: BTreeMap<&str, Vec<&LedgerRow>> = BTreeMap::new();
    for row in &state.entries {
        by_request.entry(&row.request).or_default().push(row);
    }
    let known: BTreeMap<&str, &Call> = calls.iter().map(|call| (call.request.as_str(), call)).collect();
    let mut violations = Vec::new();
    if known.len() != calls.len() {
        violations.push("two calls have the same request id".to_owned());
    }
    for call in calls {
        let rows = by_request.get(call.request.as_str()).map_or(&[][..], Vec::as_slice);
        let about = |what: String| {
            format!("{} ({:?}, outcome {:?}): {what}", call.request, call.operation, call.outcome)
        };
        violations.extend(check_outcome(call, rows, state).into_iter().map(about));
    }
    for row in &state.entries {
        let about = |what: String| format!("{} entry {} ({}): {what}", row.event, row.seq, row.kind);
        violations.extend(check_cause(row, known.get(row.request.as_str()).copied(), state).map(about));
    }
    violations.extend(check_order(&state.entries, &known));
    violations.extend(check_reads(calls, &state.entries, &by_request));
    violations.extend(check_keys(calls));
    violations.extend(payments::check(calls, state));
    violations
}

/// True for an entry of the program itself: an expired hold, or the end of a cancelled event.
fn is_system_entry(row: &LedgerRow) -> bool {
    row.actor == "system"
        && matches!(row.kind.as_str(), "booking.expired" | "booking.cancelled" | "refund.requested")
}

/// Checks a call's outcome against its entries.
fn check_outcome(call: &Call, rows: &[&LedgerRow], state: &FinalState) -> Vec<String> {
    // A call may also free overdue holds; those entries are not its own.
    let kinds: Vec<&str> =
        rows.iter().filter(|row| !is_system_entry(row)).map(|row| row.kind.as_str()).collect();
    let possible: &[&[&str]] = match (&call.operation, &call.outcome) {
        (Operation::Book { .. }, Outcome::Done(result)) if !result.replayed => &[&["booking.created"]],
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
    let mut violations = Vec::new();
    if !possible.contains(&kinds.as_slice()) {
        violations.push(format!("its ledger entries are {kinds:?}"));
    }
    if let Outcome::Done(result) = &call.outcome {
        violations.extend(check_result(&call.operation, result, rows, state));
    }
    violations
}

/// Checks the content of a result against the final state.
fn check_result(
    operation: &Operation,
    result: &CallResult,
    rows: &[&LedgerRow],
    state: &FinalState,
) -> Option<String> {
    let own = rows.iter().find(|row| !is_system_entry(row));
    let expected = match operation {
        Operation::Confirm { booking, .. } | Operation::Cancel { booking } => Some(booking),
        Operation::Book { .. } => result.booking.as_ref(),
        Operation::Settle { .. } | Operation::Edit | Operation::ReadAvailability => return None,
    };
    let (Some(id), Some(status)) = (expected, result.status.as_deref()) else {
        return Some("the result contains no booking".to_owned());
    };
    if result.booking.as_ref() != Some(id) || own.is_some_and(|row| row.booking.as_ref() != Some(id)) {
        return Some("the result is for another booking".to_owned());
    }
    let Some(booking) = state.bookings.get(id) else {
        return Some(format!("{id} was acknowledged but does not exist"));
    };
    let expected_status = match operation {
        Operation::Book { .. } => "pending",
        Operation::Confirm { .. } => "confirmed",
        Operation::Cancel { .. }
        | Operation::Settle { .. }
        | Operation::Edit
        | Operation::ReadAvailability => "cancelled",
    };
    if status != expected_status {
        return Some(format!("its status in the result is {status}, not {expected_status}"));
    }
    match operation {
        Operation::Book { user, quantity } if *user != booking.user || *quantity != booking.quantity => {
            Some(format!("{id} differs from the order: {booking:?}"))
        }
        Operation::Cancel { .. } if booking.status != "cancelled" => {
            Some(format!("{id} was cancelled but is {}", booking.status))
        }
        Operation::Confirm { amount: Some(amount), .. } if *amount != booking.total => {
            Some(format!("{id} costs {} but the payment of {amount} was accepted", booking.total))
        }
        Operation::Confirm { transaction, .. } if booking.transaction.as_ref() != Some(transaction) => {
            Some(format!("{id} does not have that payment"))
        }
        _ => None,
    }
}

/// Checks an entry against the call that caused it.
fn check_cause(row: &LedgerRow, call: Option<&Call>, state: &FinalState) -> Option<String> {
    let Some(call) = call else {
        return (!is_system_entry(row)).then(|| format!("no call caused it: {}", row.request));
    };
    if row.actor != call.actor && !is_system_entry(row) {
        return Some(format!("its actor is {}, but the call was by {}", row.actor, call.actor));
    }
    let user = row.actor.strip_prefix("user:")?;
    let booking = state.bookings.get(row.booking.as_ref()?)?;
    if booking.user != user {
        return Some(format!("changes a booking of {}", booking.user));
    }
    let paid = row.kind == "booking.cancelled" && row.from.as_deref() == Some("confirmed");
    // Not by the time of the entry, which is raised to that of the previous entry.
    let late =
        booking.cancelled_at.zip(state.cut_offs.get(&row.event)).is_some_and(|(at, until)| at > *until);
    (paid && late).then(|| "cancels a paid booking after the cut-off".to_owned())
}

/// Checks real-time order: a call that ended before another began must be first in the ledger.
fn check_order(rows: &[LedgerRow], known: &BTreeMap<&str, &Call>) -> Vec<String> {
    let mut latest_starts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut violations = Vec::new();
    for row in rows.iter().filter(|row| !is_system_entry(row)) {
        let Some(call) = known.get(row.request.as_str()) else { continue };
        let (latest, seq) = latest_starts.entry(&row.event).or_insert((call.start, row.seq));
        if call.end.is_some_and(|end| end < *latest) {
            violations.push(format!(
                "{} entry {} was acknowledged before the request of the earlier entry {seq} was sent",
                row.event, row.seq
            ));
        }
        if call.start > *latest {
            (*latest, *seq) = (call.start, row.seq);
        }
    }
    violations
}

/// Checks reads of the availability: they include all changes acknowledged before, and report the true
/// number.
fn check_reads(
    calls: &[Call],
    rows: &[LedgerRow],
    by_request: &BTreeMap<&str, Vec<&LedgerRow>>,
) -> Vec<String> {
    let left: BTreeMap<(&str, u64), u32> =
        rows.iter().map(|row| ((row.event.as_str(), row.seq), row.available_after)).collect();
    // Per event, in order of acknowledgement, the highest entry acknowledged by then.
    let mut acknowledged: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    for call in calls.iter().filter(|call| matches!(call.outcome, Outcome::Done(_))) {
        let Some(end) = call.end else { continue };
        for row in by_request.get(call.request.as_str()).into_iter().flatten() {
            acknowledged.entry(&row.event).or_default().push((end, row.seq));
        }
    }
    for marks in acknowledged.values_mut() {
        marks.sort_unstable();
        let mut highest = 0;
        for (_, seq) in marks {
            highest = highest.max(*seq);
            *seq = highest;
        }
    }
    let mut violations = Vec::new();
    for call in calls {
        let Outcome::Done(CallResult { availability: Some((seq, available)), .. }) = &call.outcome else {
            continue;
        };
        let Some(event) = call.event.as_deref() else { continue };
        let marks = acknowledged.get(event).map_or(&[][..], Vec::as_slice);
        let before = marks.partition_point(|(end, _)| *end < call.start);
        let expected_seq =
            before.checked_sub(1).and_then(|index| marks.get(index)).map_or(0, |(_, seq)| *seq);
        if *seq < expected_seq {
            violations.push(format!(
                "{} read {event} at entry {seq}, but entry {expected_seq} had been acknowledged",
                call.request
            ));
        }
        if left.get(&(event, *seq)) != Some(available) {
            violations.push(format!(
                "{} read {available} tickets left of {event} at entry {seq}, which is wrong",
                call.request
            ));
        }
    }
    violations
}

/// Checks calls under one idempotency key: one booking, one result, and no result for another request body.
fn check_keys(calls: &[Call]) -> Vec<String> {
    let mut groups: BTreeMap<(&str, &str), Vec<&Call>> = BTreeMap::new();
    for call in calls {
        if let Some((scope, key, _)) = &call.key {
            groups.entry((scope, key)).or_default().push(call);
        }
    }
    let mut violations = Vec::new();
    for ((scope, key), calls) in groups {
        let done = calls.iter().filter_map(|call| match (&call.outcome, &call.key) {
            (Outcome::Done(result), Some((_, _, digest))) => Some((*digest, result.booking.as_deref())),
            _ => None,
        });
        let results: BTreeSet<(u64, Option<&str>)> = done.collect();
        if results.len() > 1 {
            violations.push(format!("the key {key} of {scope} has several results: {results:?}"));
        }
        let fresh = |call: &&&Call| matches!(&call.outcome, Outcome::Done(result) if !result.replayed);
        if calls.iter().filter(fresh).count() > 1 {
            violations.push(format!("the key {key} of {scope} was executed twice"));
        }
    }
    violations
}
