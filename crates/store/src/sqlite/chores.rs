//! Queries of the background chores, and the statistics.

use std::collections::BTreeMap;

use domain::{BookingId, BookingStatus, Currency, EventId, Tallies, Timestamp};
use rusqlite::{Connection, Row, params};

use super::lists::list;
use super::sql;
use super::tx::fault;
use crate::fold::RowResult;
use crate::store::readable;
use crate::{CancelledEvent, Cause, DueHold, Fault, Stats};

pub(super) fn due_holds(
    connection: &Connection,
    now: Timestamp,
    after: Option<DueHold>,
    limit: u32,
) -> Result<Vec<DueHold>, Fault> {
    let (at, booking) = after.map_or((i64::MIN, [0; 16]), |hold| (hold.at_micros, *hold.booking.bytes()));
    list(connection, sql::CHORE_DUE_HOLDS, params![now.micros(), at, booking, limit], |row| {
        let (event, booking) = (EventId::from_bytes(row.get(0)?), BookingId::from_bytes(row.get(2)?));
        Ok(DueHold { event, at_micros: row.get(1)?, booking })
    })
}

pub(super) fn cancelled_events(
    connection: &Connection,
    after: Option<EventId>,
    limit: u32,
) -> Result<Vec<CancelledEvent>, Fault> {
    let after = after.map_or([0; 16], |event| *event.bytes());
    list(connection, sql::CHORE_CANCELLED_EVENTS, params![after, limit], |row| {
        Ok(CancelledEvent { event: EventId::from_bytes(row.get(0)?), has_live_bookings: row.get(1)? })
    })
}

pub(super) fn bookings_in_status(
    connection: &Connection,
    (event, status): (EventId, BookingStatus),
    after: Option<BookingId>,
    limit: u32,
) -> Result<Vec<BookingId>, Fault> {
    let after = after.map_or([0; 16], |booking| *booking.bytes());
    let values = params![event.bytes(), status.as_str(), after, limit];
    list(connection, sql::CHORE_BOOKINGS_IN_STATUS, values, |row| Ok(BookingId::from_bytes(row.get(0)?)))
}

pub(super) fn prune_keys(connection: &Connection, before: Timestamp, limit: u32) -> Result<u64, Fault> {
    let mut statement = connection.prepare_cached(sql::CHORE_PRUNE_KEYS).map_err(fault)?;
    let pruned = statement.execute(params![before.micros(), limit]).map_err(fault)?;
    Ok(pruned as u64)
}

pub(super) fn stats(connection: &Connection) -> Result<Stats, Fault> {
    let rows = list(connection, sql::EVENT_STATS, params![], |row| Ok(("an event", tallies(row))))?;
    let mut sums: BTreeMap<&'static str, (Currency, Tallies)> = BTreeMap::new();
    for (currency, tallies) in readable(rows) {
        let (_, sum) = sums.entry(currency.code()).or_insert((currency, Tallies::default()));
        *sum = sum.plus(tallies);
    }
    Ok(Stats { per_currency: sums.into_values().collect() })
}

fn tallies(row: &Row<'_>) -> RowResult<(Currency, Tallies)> {
    let count = |column: usize| row.get::<_, u64>(column).map_err(Cause::new);
    let currency: Currency = row.get::<_, String>(0).map_err(Cause::new)?.parse().map_err(Cause::new)?;
    let revenue = row.get::<_, String>(5).map_err(Cause::new)?.parse().map_err(Cause::new)?;
    let (pending, confirmed) = (count(1)?, count(2)?);
    Ok((currency, Tallies { pending, confirmed, cancelled: count(3)?, expired: count(4)?, revenue }))
}
