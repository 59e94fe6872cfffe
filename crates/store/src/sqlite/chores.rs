//! What background chores ask for, and the statistics.

use std::collections::BTreeMap;

use domain::{BookingId, Currency, EventId, Tallies, Timestamp};
use rusqlite::{Connection, Row, params};

use super::sql;
use super::tx::fault;
use crate::row::time;
use crate::{Cause, DoomedBooking, DueHold, Fault, Stats};

pub(super) fn due_holds(
    connection: &Connection,
    now: Timestamp,
    after: Option<DueHold>,
    limit: u32,
) -> Result<Vec<DueHold>, Fault> {
    let after = after.map(|hold| (*hold.event.bytes(), hold.at.micros(), *hold.booking.bytes()));
    let (event, at, booking) = after.unwrap_or(([0; 16], i64::MIN, [0; 16]));
    list(connection, sql::CHORE_DUE_HOLDS, params![now.micros(), event, at, booking, limit], |row| {
        Ok(DueHold {
            event: EventId::from_bytes(row.get(0).map_err(Cause::new)?),
            at: time(row.get(1).map_err(Cause::new)?)?,
            booking: BookingId::from_bytes(row.get(2).map_err(Cause::new)?),
        })
    })
}

pub(super) fn doomed_bookings(
    connection: &Connection,
    after: Option<DoomedBooking>,
    limit: u32,
) -> Result<Vec<DoomedBooking>, Fault> {
    let (event, seq) = after.map_or(([0; 16], 0), |booking| (*booking.event.bytes(), booking.seq));
    list(connection, sql::CHORE_DOOMED_BOOKINGS, params![event, seq, limit], |row| {
        Ok(DoomedBooking {
            event: EventId::from_bytes(row.get(0).map_err(Cause::new)?),
            seq: row.get(1).map_err(Cause::new)?,
            booking: BookingId::from_bytes(row.get(2).map_err(Cause::new)?),
        })
    })
}

pub(super) fn prune_keys(connection: &Connection, before: Timestamp, limit: u32) -> Result<u64, Fault> {
    let mut statement = connection.prepare_cached(sql::CHORE_PRUNE_KEYS).map_err(fault)?;
    let pruned = statement.execute(params![before.micros(), limit]).map_err(fault)?;
    Ok(pruned as u64)
}

pub(super) fn stats(connection: &Connection) -> Result<Stats, Fault> {
    let rows = list(connection, sql::EVENT_STATS, params![], |row| {
        let count = |column: usize| row.get::<_, u64>(column).map_err(Cause::new);
        let currency: Currency = row.get::<_, String>(0).map_err(Cause::new)?.parse().map_err(Cause::new)?;
        let revenue = row.get::<_, String>(5).map_err(Cause::new)?.parse().map_err(Cause::new)?;
        let (pending, confirmed) = (count(1)?, count(2)?);
        Ok((currency, Tallies { pending, confirmed, cancelled: count(3)?, expired: count(4)?, revenue }))
    })?;
    let mut sums: BTreeMap<&'static str, (Currency, Tallies)> = BTreeMap::new();
    for (currency, tallies) in rows {
        let (_, sum) = sums.entry(currency.code()).or_insert((currency, Tallies::default()));
        *sum = sum.plus(tallies);
    }
    Ok(Stats { per_currency: sums.into_values().collect() })
}

fn list<T>(
    connection: &Connection,
    sql: &str,
    values: &[&dyn rusqlite::ToSql],
    decode: impl Fn(&Row<'_>) -> Result<T, Cause>,
) -> Result<Vec<T>, Fault> {
    let mut statement = connection.prepare_cached(sql).map_err(fault)?;
    let rows = statement.query_map(values, |row| Ok(decode(row))).map_err(fault)?;
    rows.map(|row| row.map_err(fault)?.map_err(Fault::Broken)).collect()
}
