//! The checker of the messages on the stream, which it compares with the ledgers.

use domain::Entry;
use store::{Sqlite, Store as _};
use testkit::history::{self, LedgerRow};

use crate::nats::SimulatedNats;

/// Most rows read at once at the end. A simulation produces a few hundred.
pub(crate) const ROWS_MAX: u32 = 100_000;

/// Compares the messages of the stream with the ledgers. If `complete`, every entry must be on it.
pub(crate) async fn check_stream(shared: &Sqlite, nats: &SimulatedNats, complete: bool) -> Vec<String> {
    let messages: Vec<LedgerRow> = nats.messages().iter().map(ledger_row).collect();
    match ledgers(shared).await {
        Ok(ledgers) => history::check_stream(&ledgers, &messages, complete),
        Err(error) => vec![format!("the ledgers cannot be read: {error}")],
    }
}

async fn ledgers(shared: &Sqlite) -> Result<Vec<LedgerRow>, store::Fault> {
    let mut rows = Vec::new();
    for event in shared.events(None, ROWS_MAX).await?.rows {
        rows.extend(shared.ledger(event.id, 0, ROWS_MAX).await?.rows.iter().map(ledger_row));
    }
    Ok(rows)
}

/// Converts an entry to the texts of the API.
pub(crate) fn ledger_row(entry: &Entry) -> LedgerRow {
    LedgerRow {
        event: entry.event_id.to_string(),
        seq: entry.seq,
        kind: entry.kind.to_string(),
        booking: entry.booking_id.map(|id| id.to_string()),
        refund: entry.refund_id.map(|id| id.to_string()),
        quantity: entry.quantity,
        from: entry.from_status().map(str::to_owned),
        available_after: entry.available_after,
        actor: entry.actor.to_string(),
        request: entry.request.as_str().to_owned(),
        at: entry.at.micros(),
    }
}
