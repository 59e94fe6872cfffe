//! Reads the database for the audit, in one read transaction with one snapshot.

use std::collections::HashMap;
use std::pin::pin;

use domain::{Audit, AuditReport, Booking, BookingId, Entry, EventId, History, Refund};
use futures_util::TryStreamExt as _;
use tokio_postgres::Error;
use uuid::Uuid;

use super::session::{Session, Snapshot};
use super::{read, rows};
use crate::cell::Cells;
use crate::decode;
use crate::limit::AUDIT_PAGE;
use crate::sql::Sql;

/// Bookings, each with the numbers of its ledger entries.
type Groups = Vec<(Uuid, Vec<i64>)>;

/// Runs the audit on a session that is used for nothing else.
pub(super) async fn audit(session: &mut Session) -> Result<AuditReport, Error> {
    let snapshot = session.snapshot().await?;
    let mut audit = Audit::default();
    let events = snapshot.portal(Sql::EventListAll, &[]).await?;
    loop {
        let page = snapshot.next_page(&events, AUDIT_PAGE).await?;
        if page.is_empty() {
            break;
        }
        for row in page {
            walk_event(&snapshot, row.try_get("id")?, &mut audit).await?;
        }
    }
    let totals = snapshot.call(Sql::AuditTotals, &[]).await?;
    let totals = rows::decode(&totals, |cells| Ok((cells.next()?, cells.next()?, cells.next()?)));
    let (bookings, entries, refunds) = totals.unwrap_or_default().pop().unwrap_or_default();
    Ok(audit.finish(bookings, entries, refunds))
}

async fn walk_event(snapshot: &Snapshot<'_>, id: Uuid, audit: &mut Audit) -> Result<(), Error> {
    let rows = snapshot.call(Sql::EventLoad, &[&vec![id]]).await?;
    let limited = match read::events(&rows).map(|events| events.into_iter().next()) {
        Ok(Some((_, Ok(event)))) => {
            let limited = event.details.max_tickets_per_user.is_some();
            audit.event(event);
            limited
        }
        Ok(Some((_, Err(cause)))) | Err(cause) => {
            audit.unreadable(cause);
            return Ok(());
        }
        Ok(None) => return Ok(()),
    };
    walk_ledger(snapshot, id, audit).await?;
    walk_bookings(snapshot, id, audit).await?;
    if limited {
        walk_users(snapshot, id, audit).await?;
    }
    Ok(())
}

async fn walk_ledger(snapshot: &Snapshot<'_>, id: Uuid, audit: &mut Audit) -> Result<(), Error> {
    let event = EventId::from_bytes(*id.as_bytes());
    let mut rows = pin!(snapshot.stream(Sql::AuditLedger, &[&id]).await?);
    while let Some(row) = rows.try_next().await? {
        let (entry, booking) = decode::entry_beside_booking(&mut Cells::new(&row));
        match entry {
            Ok(entry) => audit.entry(&entry, booking.as_ref()),
            Err(cause) => audit.unreadable(format!("a ledger entry of {event}: {cause}")),
        }
    }
    Ok(())
}

/// Checks the bookings of an event, a page of histories at a time.
async fn walk_bookings(snapshot: &Snapshot<'_>, event: Uuid, audit: &mut Audit) -> Result<(), Error> {
    let order = snapshot.portal(Sql::AuditEntriesByBooking, &[&event]).await?;
    let mut groups = Groups::new();
    loop {
        let rows = snapshot.next_page(&order, AUDIT_PAGE).await?;
        if rows.is_empty() {
            return finish_bookings(snapshot, event, groups, audit).await;
        }
        for row in rows {
            let (booking, seq): (Uuid, i64) = (row.try_get("booking_id")?, row.try_get("seq")?);
            match groups.last_mut() {
                Some((last, seqs)) if *last == booking => seqs.push(seq),
                Some(_) | None => groups.push((booking, vec![seq])),
            }
        }
        // The last booking may have more entries on the next page.
        let unfinished = groups.pop();
        finish_bookings(snapshot, event, std::mem::take(&mut groups), audit).await?;
        groups.extend(unfinished);
    }
}

async fn finish_bookings(
    snapshot: &Snapshot<'_>,
    event: Uuid,
    groups: Groups,
    audit: &mut Audit,
) -> Result<(), Error> {
    if groups.is_empty() {
        return Ok(());
    }
    let of = EventId::from_bytes(*event.as_bytes());
    let ids: Vec<Uuid> = groups.iter().map(|(id, _)| *id).collect();
    let seqs: Vec<i64> = groups.into_iter().flat_map(|(_, seqs)| seqs).collect();
    let mut entries: HashMap<BookingId, Vec<Entry>> = HashMap::with_capacity(ids.len());
    for row in snapshot.call(Sql::AuditEntries, &[&event, &seqs]).await? {
        // An entry that cannot be decoded was reported in `walk_ledger`.
        if let Ok(entry) = decode::entry(&mut Cells::new(&row))
            && let Some(booking) = entry.booking_id
        {
            entries.entry(booking).or_default().push(entry);
        }
    }
    let mut bookings: HashMap<BookingId, Booking> = HashMap::with_capacity(ids.len());
    for row in snapshot.call(Sql::BookingLoad, &[&ids]).await? {
        match decode::booking(&mut Cells::new(&row)) {
            Ok(booking) => drop(bookings.insert(booking.id, booking)),
            Err(cause) => audit.unreadable(format!("a booking of {of}: {cause}")),
        }
    }
    let mut refunds: HashMap<BookingId, Vec<Refund>> = HashMap::new();
    for row in snapshot.call(Sql::RefundListOfBookings, &[&ids]).await? {
        match decode::refund(&mut Cells::new(&row)) {
            Ok(refund) => refunds.entry(refund.booking_id).or_default().push(refund),
            Err(cause) => audit.unreadable(format!("a refund of {of}: {cause}")),
        }
    }
    for id in ids.into_iter().map(|id| BookingId::from_bytes(*id.as_bytes())) {
        let (entries, booking) = (entries.remove(&id).unwrap_or_default(), bookings.remove(&id));
        let refunds = refunds.remove(&id).unwrap_or_default();
        audit.history(&History { id, entries, booking, refunds });
    }
    Ok(())
}

async fn walk_users(snapshot: &Snapshot<'_>, id: Uuid, audit: &mut Audit) -> Result<(), Error> {
    let event = EventId::from_bytes(*id.as_bytes());
    let mut rows = pin!(snapshot.stream(Sql::AuditUsers, &[&id]).await?);
    while let Some(row) = rows.try_next().await? {
        match decode::counted_user(&mut Cells::new(&row)) {
            Ok((user, holds, counted)) => audit.user(&user, holds, counted),
            Err(cause) => audit.unreadable(format!("a counted user of {event}: {cause}")),
        }
    }
    Ok(())
}
