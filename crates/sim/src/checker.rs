//! The verdict: the program's own audit, what clients heard, and what was told, each against the ledgers.

use domain::Entry;
use store::{BookingList, Store as _};
use testkit::history::{self, BookingRow, FinalState, LedgerRow, RefundRow};

use crate::fleet::Fleet;
use crate::workload::Workload;

/// Most rows read at once when all is over; a simulation makes a few hundred.
pub(crate) const ALL: u32 = 100_000;

/// The audit of the program, and the history of the people against the ledger.
pub(crate) async fn all(workload: &Workload, fleet: &Fleet) {
    let world = &workload.world;
    match fleet.shared.audit().await {
        Ok(report) => report.violations.into_iter().for_each(|what| world.wrong(format!("audit: {what}"))),
        Err(error) => world.wrong(format!("no audit: {error}")),
    }
    match books(workload, fleet).await {
        Ok(books) => {
            let calls = workload.known().calls.clone();
            for what in history::check(&calls, &books) {
                world.wrong(format!("history: {what}"));
            }
        }
        Err(error) => world.wrong(format!("no books: {error}")),
    }
    for what in stream(fleet, false).await {
        world.wrong(format!("stream: {what}"));
    }
}

/// What is on the stream, against the ledgers.
pub(crate) async fn stream(fleet: &Fleet, whole: bool) -> Vec<String> {
    let messages: Vec<LedgerRow> = fleet.nats.messages().iter().map(line).collect();
    match ledgers(fleet).await {
        Ok(ledgers) => history::check_stream(&ledgers, &messages, whole),
        Err(error) => vec![format!("no ledgers: {error}")],
    }
}

async fn ledgers(fleet: &Fleet) -> Result<Vec<LedgerRow>, store::Fault> {
    let mut lines = Vec::new();
    for event in fleet.shared.events(None, ALL).await?.rows {
        lines.extend(fleet.shared.ledger(event.id, 0, ALL).await?.rows.iter().map(line));
    }
    Ok(lines)
}

/// An entry in the words of the wire.
fn line(entry: &Entry) -> LedgerRow {
    LedgerRow {
        event: entry.event_id.to_string(),
        seq: entry.seq,
        kind: entry.kind.to_string(),
        booking: entry.booking_id.map(|id| id.to_string()),
        refund: entry.refund_id.map(|id| id.to_string()),
        quantity: entry.quantity,
        from: entry.from.map(|from| from.to_string()),
        available_after: entry.available_after,
        actor: entry.actor.to_string(),
        request: entry.request.as_str().to_owned(),
        at: entry.at.micros(),
    }
}

/// What the store holds, in the words of the wire.
async fn books(workload: &Workload, fleet: &Fleet) -> Result<FinalState, store::Fault> {
    let mut books = FinalState::default();
    let text = |id: &dyn std::fmt::Display| id.to_string();
    for event in fleet.shared.events(None, ALL).await?.rows {
        let until = event.details.starts_at.minus_seconds(event.details.cancel_cutoff_seconds);
        books.cut_offs.insert(text(&event.id), until.micros());
        for entry in fleet.shared.ledger(event.id, 0, ALL).await?.rows {
            workload.world.saw(&format!(
                "ledger: {} from {}",
                entry.kind,
                entry.from.map_or("nothing", domain::LedgerStatus::as_str)
            ));
            books.entries.push(line(&entry));
        }
    }
    for booking in fleet.shared.bookings(BookingList::All { after: None }, None, ALL).await?.rows {
        let booked = BookingRow {
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
        books.bookings.insert(text(&booking.id), booked);
    }
    for refund in fleet.shared.refunds(None, None, ALL).await?.rows {
        workload.world.saw(&format!("refund: {}", refund.reason));
        let refunded = RefundRow {
            booking: text(&refund.booking_id),
            transaction: text(&refund.transaction),
            amount: refund.amount.amount(),
        };
        books.refunds.insert(text(&refund.id), refunded);
    }
    Ok(books)
}
