//! Paged lists. A row that cannot be decoded is left out of its page; the cursor continues after its key.

use domain::{
    Booking, BookingId, BookingStatus, Entry, Event, EventId, Refund, RefundId, RefundStatus, UserId,
};
use uuid::Uuid;

use super::read::{self, RowReader};
use super::session::Value;
use super::sql::Sql;
use super::{Postgres, id};
use crate::fold::RowResult;
use crate::store::USER_WINDOW;
use crate::{BookingList, Fault, Page};

/// The largest id: the start of a descending list.
const MAX_ID: Uuid = Uuid::max();

/// A row with its key.
type KeyedRow<K, T> = (K, RowResult<T>);

fn cursor_or_max(bytes: Option<&[u8; 16]>) -> Value<'static> {
    Box::new(bytes.map_or(MAX_ID, |bytes| Uuid::from_bytes(*bytes)))
}

/// One more row than the page shows: the surplus row shows that there is a next page.
fn limit_plus_one(limit: u32) -> Value<'static> {
    Box::new(i64::from(limit) + 1)
}

pub(super) async fn events(
    store: &Postgres,
    after: Option<EventId>,
    limit: u32,
) -> Result<Page<Event>, Fault> {
    let values = vec![cursor_or_max(after.as_ref().map(EventId::bytes)), limit_plus_one(limit)];
    Ok(Page::from_surplus(store.list_events(Sql::EventList, values).await?, limit))
}

pub(super) async fn bookings(
    store: &Postgres,
    list: &BookingList,
    status: Option<BookingStatus>,
    limit: u32,
) -> Result<Page<Booking>, Fault> {
    let before = |after: &Option<BookingId>| cursor_or_max(after.as_ref().map(BookingId::bytes));
    let status_text = status.map(|status| -> Value<'_> { Box::new(status.as_str()) });
    let more = limit_plus_one(limit);
    let rows = match (list, status_text) {
        (BookingList::OfUser { user, event, after }, _) => {
            return bookings_of_user(store, (user, *event), *after, status, limit).await;
        }
        (BookingList::OfEvent { event, after }, None) => {
            let values = vec![id(event.bytes()), before(after), more];
            booking_rows(store, Sql::BookingListOfEvent, values).await
        }
        (BookingList::OfEvent { event, after }, Some(status_text)) => {
            let values = vec![id(event.bytes()), status_text, before(after), more];
            booking_rows(store, Sql::BookingListOfEventInStatus, values).await
        }
        (BookingList::All { after }, None) => {
            booking_rows(store, Sql::BookingListAll, vec![before(after), more]).await
        }
        (BookingList::All { after }, Some(status_text)) => {
            booking_rows(store, Sql::BookingListInStatus, vec![status_text, before(after), more]).await
        }
    };
    Ok(Page::from_surplus(rows?, limit))
}

/// A filtered page ends at the end of its window of [`USER_WINDOW`] bookings, however few rows match in it.
async fn bookings_of_user(
    store: &Postgres,
    (user, event): (&UserId, Option<EventId>),
    after: Option<BookingId>,
    status: Option<BookingStatus>,
    limit: u32,
) -> Result<Page<Booking>, Fault> {
    let before = || cursor_or_max(after.as_ref().map(BookingId::bytes));
    let end = if event.is_some() || status.is_some() {
        let window: Value<'_> = Box::new(i64::from(USER_WINDOW - 1));
        let values: Vec<Value<'_>> = vec![Box::new(user.as_str()), before(), window];
        store.list(Sql::BookingWindowOfUser, values, |row| row.id(0)).await?.pop()
    } else {
        None
    };
    let values: Vec<Value<'_>> = vec![
        Box::new(user.as_str()),
        before(),
        id(&end.unwrap_or([0; 16])),
        Box::new(event.map(|event| Uuid::from_bytes(*event.bytes()))),
        Box::new(status.map(BookingStatus::as_str)),
        limit_plus_one(limit),
    ];
    let mut page = Page::from_surplus(booking_rows(store, Sql::BookingListOfUser, values).await?, limit);
    page.next = page.next.or_else(|| end.map(|id| BookingId::from_bytes(id).to_string()));
    Ok(page)
}

async fn booking_rows(
    store: &Postgres,
    sql: Sql,
    values: Vec<Value<'_>>,
) -> Result<Vec<KeyedRow<BookingId, Booking>>, Fault> {
    let booking = |row: RowReader<'_>| Ok((BookingId::from_bytes(row.id(0)?), read::booking(row)));
    store.list(sql, values, booking).await
}

pub(super) async fn ledger(
    store: &Postgres,
    event: EventId,
    after: u64,
    limit: u32,
) -> Result<Page<Entry>, Fault> {
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let values = vec![id(event.bytes()), Box::new(after), limit_plus_one(limit)];
    let entry = |row: RowReader<'_>| Ok((row.get::<i64>(1)?, read::entry(row)));
    Ok(Page::from_surplus(store.list(Sql::LedgerList, values, entry).await?, limit))
}

pub(super) async fn refunds(
    store: &Postgres,
    status: Option<RefundStatus>,
    after: Option<RefundId>,
    limit: u32,
) -> Result<Page<Refund>, Fault> {
    let before = cursor_or_max(after.as_ref().map(RefundId::bytes));
    let refund = |row: RowReader<'_>| Ok((RefundId::from_bytes(row.id(0)?), read::refund(row)));
    let rows = match status {
        None => store.list(Sql::RefundList, vec![before, limit_plus_one(limit)], refund).await,
        Some(status) => {
            let values = vec![Box::new(status.as_str()) as Value<'_>, before, limit_plus_one(limit)];
            store.list(Sql::RefundListInStatus, values, refund).await
        }
    };
    Ok(Page::from_surplus(rows?, limit))
}
