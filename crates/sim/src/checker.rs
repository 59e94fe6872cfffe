//! The checkers at the end of a run: the program's own audit, the outcomes that clients saw, and the messages
//! on the stream, each compared with the ledgers.

use store::{BookingList, Store as _};
use testkit::history::{self, BookingRow, FinalState, RefundRow};

use crate::fleet::Fleet;
use crate::stream_checker::{ROWS_MAX, check_stream, ledger_row};
use crate::workload::Workload;

/// Runs all checkers and reports their violations.
pub(crate) async fn check_all(workload: &Workload, fleet: &Fleet) {
    let world = &workload.world;
    match fleet.shared.audit().await {
        Ok(report) => report
            .violations
            .into_iter()
            .for_each(|violation| world.report_violation(format!("audit: {violation}"))),
        Err(error) => world.report_violation(format!("the audit failed: {error}")),
    }
    match final_state(workload, fleet).await {
        Ok(state) => {
            let calls = workload.known().calls.clone();
            for violation in history::check(&calls, &state) {
                world.report_violation(format!("history: {violation}"));
            }
        }
        Err(error) => world.report_violation(format!("the final state cannot be read: {error}")),
    }
    for violation in check_stream(&fleet.shared, &fleet.nats, false).await {
        world.report_violation(format!("stream: {violation}"));
    }
}

/// Reads everything that the store holds, as the texts of the API.
async fn final_state(workload: &Workload, fleet: &Fleet) -> Result<FinalState, store::Fault> {
    let mut state = FinalState::default();
    let text = |id: &dyn std::fmt::Display| id.to_string();
    for event in fleet.shared.events(None, ROWS_MAX).await?.rows {
        let until = event.details.starts_at.minus_seconds(event.details.cancel_cutoff_seconds);
        state.cut_offs.insert(text(&event.id), until.micros());
        for entry in fleet.shared.ledger(event.id, 0, ROWS_MAX).await?.rows {
            workload.world.record_coverage(&format!(
                "ledger: {} from {}",
                entry.kind,
                entry.from_status().unwrap_or("none")
            ));
            state.entries.push(ledger_row(&entry));
        }
    }
    for booking in fleet.shared.bookings(BookingList::All { after: None }, None, ROWS_MAX).await?.rows {
        let row = BookingRow {
            event: text(&booking.event_id),
            user: text(&booking.user),
            status: text(&booking.status()),
            quantity: booking.items.quantity(),
            total: booking.total.amount(),
            transaction: booking.payment().map(|payment| text(&payment.transaction)),
            cancelled_at: match &booking.state {
                domain::State::Cancelled { at, .. } => Some(at.micros()),
                domain::State::Pending | domain::State::Confirmed(_) | domain::State::Expired { .. } => None,
            },
        };
        state.bookings.insert(text(&booking.id), row);
    }
    for refund in fleet.shared.refunds(None, None, ROWS_MAX).await?.rows {
        workload.world.record_coverage(&format!("refund: {}", refund.reason));
        let row = RefundRow {
            booking: text(&refund.booking_id),
            transaction: text(&refund.transaction),
            amount: refund.amount.amount(),
        };
        state.refunds.insert(text(&refund.id), row);
    }
    Ok(state)
}
