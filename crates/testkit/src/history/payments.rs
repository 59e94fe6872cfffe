//! Captured payments: each buys something or is given back, once, in full.

use std::collections::{BTreeMap, BTreeSet};

use super::{Call, FinalState, Operation, Outcome};

pub(super) fn check(calls: &[Call], books: &FinalState) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut refunded: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for (id, refund) in &books.refunds {
        if refunded.insert((&refund.booking, &refund.transaction), id).is_some() {
            wrong.push(format!("{} of {} is given back twice", refund.transaction, refund.booking));
        }
    }
    let captured: BTreeSet<(&str, &str)> = calls.iter().filter_map(|call| payment(&call.operation)).collect();
    for (id, refund) in &books.refunds {
        if !captured.contains(&(refund.booking.as_str(), refund.transaction.as_str())) {
            wrong.push(format!("{id} gives back what nobody has paid: {refund:?}"));
        }
        let total = books.bookings.get(&refund.booking).map(|booking| booking.total);
        if total != Some(refund.amount) {
            wrong.push(format!("{id} gives back {} of {total:?}", refund.amount));
        }
    }
    for call in calls {
        let Some(paid) = payment(&call.operation) else { continue };
        let Some(booking) = books.bookings.get(paid.0) else { continue };
        let (refund, pays) = (refunded.get(&paid).copied(), pays(booking, paid.1));
        match &call.outcome {
            Outcome::Done(_) if !pays && refund.is_none() => {
                wrong.push(format!(
                    "{}: {paid:?} was accepted, buys nothing and is not given back",
                    call.request
                ));
            }
            Outcome::Refused { code, refund: named }
                if late(code) && (named.is_none() || named.as_deref() != refund) =>
            {
                wrong.push(format!(
                    "{}: {paid:?} was refused with {named:?}, but stands {refund:?}",
                    call.request
                ));
            }
            Outcome::Done(_) | Outcome::Refused { .. } | Outcome::Failed | Outcome::Unknown => {}
        }
        if pays && refund.is_some() {
            wrong.push(format!("{paid:?} buys a booking and is given back"));
        }
    }
    wrong
}

fn payment(ask: &Operation) -> Option<(&str, &str)> {
    match ask {
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

/// A refusal that says that the payment came too late.
fn late(code: &str) -> bool {
    matches!(code, "hold_expired" | "invalid_state" | "event_cancelled")
}
