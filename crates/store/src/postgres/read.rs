//! Reads of events, whose ticket types PostgreSQL reads in the same statement.

use domain::{Event, EventId};
use tokio_postgres::Row;

use crate::cell::Cells;
use crate::decode;
use crate::fault::RowResult;

/// Decodes events from their rows: one row per ticket type, the rows of an event adjacent.
pub(super) fn events(rows: &[Row]) -> RowResult<Vec<(EventId, RowResult<Event>)>> {
    let id = |row: &Row| Cells::new(row).peek::<[u8; 16]>().ok();
    let mut events = Vec::new();
    for rows in rows.chunk_by(|row, next| id(row) == id(next)) {
        let mut types = Vec::with_capacity(rows.len());
        for row in rows {
            types.extend(decode::ticket_type_beside_event(&Cells::new(row))?);
        }
        let (id, event) = decode::event(&mut Cells::new(&rows[0]))?;
        events.push((id, decode::with_ticket_types(event, types)));
    }
    Ok(events)
}
