//! The reads of a store, which are the same for every database, and what a database implements for them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use domain::{
    AuditReport, Booking, BookingId, BookingStatus, Currency, Entry, Event, EventId, Refund, RefundId,
    RefundStatus, Tallies, Timestamp, UserId,
};

use crate::cell::{Cell, Cells};
use crate::decode;
use crate::encode::{self, Write};
use crate::fault::RowResult;
use crate::limit::USER_WINDOW;
use crate::sql::Sql;
use crate::store::{readable, readable_prefix};
use crate::{
    BookingList, CancelledEvent, Cause, Consumer, Cursor, CursorFilter, DueHold, EntryWithBooking, Fault,
    Page, Reply, Stats, Store, StoreHealth, Submission,
};

/// A statement that reads rows, and its parameters.
pub(crate) struct Query {
    pub(crate) sql: Sql,
    pub(crate) values: Vec<Cell<'static>>,
}

/// Decodes a row. An error fails the whole query; rows that may be corrupt are decoded to a `Result`.
pub(crate) type Decode<T> = fn(&mut Cells<'_>) -> RowResult<T>;

/// What the databases do in different ways.
#[async_trait]
pub(crate) trait Database: Send + Sync {
    /// See [`Store::execute`].
    async fn execute(&self, batch: Vec<Submission>) -> Vec<Reply>;

    /// See [`Store::try_execute`].
    async fn try_execute(&self, batch: Vec<Submission>) -> Vec<Reply>;

    /// Runs a statement that reads, and decodes its rows.
    async fn rows<T: Send + 'static>(&self, query: Query, decode: Decode<T>) -> Result<Vec<T>, Fault>;

    /// The booking with this id.
    async fn booking(&self, id: BookingId) -> Result<Option<Booking>, Fault>;

    /// The events with these ids that exist, read in one snapshot.
    async fn events(&self, ids: Vec<EventId>) -> Result<Vec<(EventId, RowResult<Event>)>, Fault>;

    /// Up to `limit` events with ids below `before`, newest first, read in one snapshot.
    async fn events_before(
        &self,
        before: [u8; 16],
        limit: u32,
    ) -> Result<Vec<(EventId, RowResult<Event>)>, Fault>;

    /// The earlier one of `now` and the database's clock, if that is not compared in the statement itself.
    fn bounded_by_clock(&self, now: Timestamp) -> Timestamp;

    /// Runs a statement that deletes rows. Returns the number of rows.
    async fn delete(&self, query: Query) -> Result<u64, Fault>;

    /// Writes rows in one transaction.
    async fn write(&self, write: Write<'static>) -> Result<(), Fault>;

    /// See [`Store::health`].
    async fn health(&self) -> Result<StoreHealth, Fault>;

    /// See [`Store::audit`].
    async fn audit(&self) -> Result<AuditReport, Fault>;
}

/// The start of an ascending list: no id is smaller.
const MIN_ID: [u8; 16] = [0; 16];
/// The start of a descending list: no id is larger.
const MAX_ID: [u8; 16] = [0xff; 16];

fn query<const N: usize>(sql: Sql, values: [Cell<'static>; N]) -> Query {
    Query { sql, values: values.into() }
}

fn text(text: &str) -> Cell<'static> {
    text.to_owned().into()
}

#[async_trait]
impl<D: Database> Store for D {
    async fn execute(&self, batch: Vec<Submission>) -> Vec<Reply> {
        Database::execute(self, batch).await
    }

    async fn try_execute(&self, batch: Vec<Submission>) -> Vec<Reply> {
        Database::try_execute(self, batch).await
    }

    async fn event(&self, id: EventId) -> Result<Option<Event>, Fault> {
        let event = Database::events(self, vec![id]).await?.pop();
        event.map(|(_, event)| event).transpose().map_err(Fault::Broken)
    }

    async fn events_by_ids(&self, ids: Vec<EventId>) -> Result<Vec<(EventId, Result<Event, Cause>)>, Fault> {
        Database::events(self, ids).await
    }

    async fn events(&self, after: Option<EventId>, limit: u32) -> Result<Page<Event>, Fault> {
        let before = after.map_or(MAX_ID, |id| *id.bytes());
        Ok(Page::from_surplus(self.events_before(before, limit + 1).await?, limit))
    }

    async fn booking(&self, id: BookingId) -> Result<Option<Booking>, Fault> {
        Database::booking(self, id).await
    }

    async fn bookings(
        &self,
        list: BookingList,
        status: Option<BookingStatus>,
        limit: u32,
    ) -> Result<Page<Booking>, Fault> {
        let before = |after: Option<BookingId>| Cell::Id(after.map_or(MAX_ID, |id| *id.bytes()));
        let (status_text, more) = (status.map(|status| text(status.as_str())), Cell::from(limit + 1));
        let query = match (list, status_text) {
            (BookingList::OfUser { user, event, after }, _) => {
                return UserBookings { user, event, status }.page(self, after, limit).await;
            }
            (BookingList::WithExternalRef { external_ref, user, event, after }, status) => {
                let user = user.map(|user| text(user.as_str())).into();
                let event = event.map(|event| *event.bytes()).into();
                let values = [text(external_ref.as_str()), before(after), user, event, status.into(), more];
                query(Sql::BookingListByExternalRef, values)
            }
            (BookingList::OfEvent { event, after }, None) => {
                query(Sql::BookingListOfEvent, [Cell::Id(*event.bytes()), before(after), more])
            }
            (BookingList::OfEvent { event, after }, Some(status)) => {
                let values = [Cell::Id(*event.bytes()), status, before(after), more];
                query(Sql::BookingListOfEventInStatus, values)
            }
            (BookingList::All { after }, None) => query(Sql::BookingListAll, [before(after), more]),
            (BookingList::All { after }, Some(status)) => {
                query(Sql::BookingListInStatus, [status, before(after), more])
            }
        };
        Ok(Page::from_surplus(self.rows(query, decode::booking_with_id).await?, limit))
    }

    async fn ledger(&self, event: EventId, after: u64, limit: u32) -> Result<Page<Entry>, Fault> {
        let query = query(Sql::LedgerList, [Cell::Id(*event.bytes()), after.into(), (limit + 1).into()]);
        Ok(Page::from_surplus(self.rows(query, decode::entry_with_seq).await?, limit))
    }

    async fn refunds(
        &self,
        status: Option<RefundStatus>,
        after: Option<RefundId>,
        limit: u32,
    ) -> Result<Page<Refund>, Fault> {
        let (before, more) = (Cell::Id(after.map_or(MAX_ID, |id| *id.bytes())), Cell::from(limit + 1));
        let query = match status {
            None => query(Sql::RefundList, [before, more]),
            Some(status) => query(Sql::RefundListInStatus, [text(status.as_str()), before, more]),
        };
        Ok(Page::from_surplus(self.rows(query, decode::refund_with_id).await?, limit))
    }

    async fn refund(&self, id: RefundId) -> Result<Option<Refund>, Fault> {
        Ok(self.rows(query(Sql::RefundFind, [Cell::Id(*id.bytes())]), decode::refund).await?.pop())
    }

    async fn stats(&self) -> Result<Stats, Fault> {
        let row: Decode<_> = |cells| Ok(("an event", decode::tallies_in_currency(cells)));
        let rows = self.rows(query(Sql::EventStats, []), row).await?;
        let mut sums: BTreeMap<&'static str, (Currency, Tallies)> = BTreeMap::new();
        for (currency, tallies) in readable(rows) {
            let (_, sum) = sums.entry(currency.code()).or_insert((currency, Tallies::default()));
            *sum = sum.plus(tallies);
        }
        Ok(Stats { per_currency: sums.into_values().collect() })
    }

    async fn due_holds(
        &self,
        now: Timestamp,
        after: Option<DueHold>,
        limit: u32,
    ) -> Result<Vec<DueHold>, Fault> {
        let (at, booking) = after.map_or((i64::MIN, MIN_ID), |hold| (hold.at_micros, *hold.booking.bytes()));
        let now = self.bounded_by_clock(now).micros();
        let values = [now.into(), at.into(), Cell::Id(booking), limit.into()];
        self.rows(query(Sql::ChoreDueHolds, values), decode::due_hold).await
    }

    async fn cancelled_events(
        &self,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Vec<CancelledEvent>, Fault> {
        let after = Cell::Id(after.map_or(MIN_ID, |event| *event.bytes()));
        self.rows(query(Sql::ChoreCancelledEvents, [after, limit.into()]), decode::cancelled_event).await
    }

    async fn bookings_in_status(
        &self,
        event: EventId,
        status: BookingStatus,
        after: Option<BookingId>,
        limit: u32,
    ) -> Result<Vec<BookingId>, Fault> {
        let after = Cell::Id(after.map_or(MIN_ID, |booking| *booking.bytes()));
        let values = [Cell::Id(*event.bytes()), text(status.as_str()), after, limit.into()];
        self.rows(query(Sql::ChoreBookingsInStatus, values), decode::booking_id).await
    }

    async fn prune_keys(&self, before: Timestamp, limit: u32) -> Result<u64, Fault> {
        self.delete(query(Sql::ChorePruneKeys, [before.micros().into(), limit.into()])).await
    }

    async fn cursors(
        &self,
        consumer: &Consumer,
        which: CursorFilter,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Vec<Cursor>, Fault> {
        let after = Cell::Id(after.map_or(MIN_ID, |event| *event.bytes()));
        let is_filtered = which == CursorFilter::Behind;
        let (name, destination) = (text(&consumer.name), consumer.destination.micros().into());
        let values = [name, destination, after, is_filtered.into(), limit.into()];
        self.rows(query(Sql::CursorList, values), decode::cursor).await
    }

    async fn entries_with_bookings(
        &self,
        event: EventId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<EntryWithBooking>, Fault> {
        let query = query(Sql::LedgerWithBookings, [Cell::Id(*event.bytes()), after.into(), limit.into()]);
        readable_prefix(self.rows(query, |cells| Ok(decode::entry_with_booking(cells))).await?)
    }

    async fn save_cursors(&self, consumer: &Consumer, processed: Vec<(EventId, u64)>) -> Result<(), Fault> {
        for write in encode::cursors(consumer, &processed) {
            self.write(write).await?;
        }
        Ok(())
    }

    async fn pending_entry_count(&self, consumer: &str) -> Result<u64, Fault> {
        let query = query(Sql::CursorPendingCount, [text(consumer)]);
        Ok(self.rows(query, decode::count).await?.into_iter().sum())
    }

    async fn health(&self) -> Result<StoreHealth, Fault> {
        Database::health(self).await
    }

    async fn audit(&self) -> Result<AuditReport, Fault> {
        Database::audit(self).await
    }
}

/// The bookings of a user; only those of one event and in one status if these are set.
struct UserBookings {
    user: UserId,
    event: Option<EventId>,
    status: Option<BookingStatus>,
}

impl UserBookings {
    /// A page, newest first. A filtered page ends at the end of its window of [`USER_WINDOW`] bookings,
    /// however few rows match in it.
    async fn page(
        &self,
        database: &impl Database,
        after: Option<BookingId>,
        limit: u32,
    ) -> Result<Page<Booking>, Fault> {
        let (user, before) = (text(self.user.as_str()), Cell::Id(after.map_or(MAX_ID, |id| *id.bytes())));
        let end = if self.event.is_some() || self.status.is_some() {
            let values = [user.clone(), before.clone(), (USER_WINDOW - 1).into()];
            database.rows(query(Sql::BookingWindowOfUser, values), decode::booking_id).await?.pop()
        } else {
            None
        };
        let values = [
            user,
            before,
            Cell::Id(end.map_or(MIN_ID, |id| *id.bytes())),
            self.event.map(|event| *event.bytes()).into(),
            self.status.map(BookingStatus::as_str).into(),
            (limit + 1).into(),
        ];
        let rows = database.rows(query(Sql::BookingListOfUser, values), decode::booking_with_id).await?;
        let mut page = Page::from_surplus(rows, limit);
        page.next = page.next.or_else(|| end.map(|id| id.to_string()));
        Ok(page)
    }
}
