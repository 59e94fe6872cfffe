//! Checks captured payments: each pays for a booking or is refunded, once, in full.

use std::collections::{BTreeMap, BTreeSet};

use super::{Call, FinalState, Operation, Outcome};

pub(super) fn check(calls: &[Call], state: &FinalState) -> Vec<String> {
    let mut violations = Vec::new();
    let mut refunded: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for (id, refund) in &state.refunds {
        if refunded.insert((&refund.booking, &refund.transaction), id).is_some() {
            violations.push(format!("{} of {} is refunded twice", refund.transaction, refund.booking));
        }
    }
    let captured: BTreeSet<(&str, &str)> = calls.iter().filter_map(|call| payment(&call.operation)).collect();
    for (id, refund) in &state.refunds {
        if !captured.contains(&(refund.booking.as_str(), refund.transaction.as_str())) {
            violations.push(format!("{id} refunds a payment that was not captured: {refund:?}"));
        }
        let total = state.bookings.get(&refund.booking).map(|booking| booking.total);
        if total != Some(refund.amount) {
            violations.push(format!("{id} refunds {} of {total:?}", refund.amount));
        }
    }
    for call in calls {
        let Some(paid) = payment(&call.operation) else { continue };
        let Some(booking) = state.bookings.get(paid.0) else { continue };
        let refund = refunded.get(&paid).copied();
        let pays = pays(booking, paid.1);
        match &call.outcome {
            Outcome::Done(_) if !pays && refund.is_none() => {
                violations.push(format!(
                    "{}: {paid:?} was accepted, but neither pays for a booking nor is refunded",
                    call.request
                ));
            }
            Outcome::Refused { code, refund: named }
                if is_late_payment(code) && (named.is_none() || named.as_deref() != refund) =>
            {
                violations.push(format!(
                    "{}: {paid:?} was refused with refund {named:?}, but the refund is {refund:?}",
                    call.request
                ));
            }
            Outcome::Done(_) | Outcome::Refused { .. } | Outcome::Failed | Outcome::Unknown => {}
        }
        if pays && refund.is_some() {
            violations.push(format!("{paid:?} pays for a booking and is refunded"));
        }
    }
    violations
}

fn payment(operation: &Operation) -> Option<(&str, &str)> {
    match operation {
        Operation::Confirm { booking, transaction, .. } => Some((booking, transaction)),
        Operation::Book { .. }
        | Operation::Cancel { .. }
        | Operation::Settle { .. }
        | Operation::Edit
        | Operation::ReadAvailability => None,
    }
}

fn pays(booking: &super::BookingRow, transaction: &str) -> bool {
    booking.status == "confirmed" && booking.transaction.as_deref() == Some(transaction)
}

/// True for the code of a refusal of a late payment.
fn is_late_payment(code: &str) -> bool {
    matches!(code, "hold_expired" | "invalid_state" | "event_cancelled")
}
