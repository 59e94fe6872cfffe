//! Several stores on one database, used as one: each call goes to the next of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use domain::{
    AuditReport, Booking, BookingId, BookingStatus, Entry, Event, EventId, Refund, RefundId, RefundStatus,
    Timestamp,
};
use store::{
    BookingList, CancelledEvent, Cause, Consumer, Cursor, CursorFilter, DueHold, EntryWithBooking, Fault,
    Page, Reply, Stats, Store, StoreHealth, Submission,
};

pub(crate) struct RoundRobinStore {
    pub(crate) stores: Vec<Arc<dyn Store>>,
    pub(crate) next: AtomicUsize,
}

impl RoundRobinStore {
    fn next(&self) -> &dyn Store {
        &*self.stores[self.next.fetch_add(1, Ordering::Relaxed) % self.stores.len()]
    }
}

#[async_trait]
impl Store for RoundRobinStore {
    async fn execute(&self, batch: Vec<Submission>) -> Vec<Reply> {
        self.next().execute(batch).await
    }

    async fn event(&self, id: EventId) -> Result<Option<Event>, Fault> {
        self.next().event(id).await
    }

    async fn events_by_ids(&self, ids: Vec<EventId>) -> Result<Vec<(EventId, Result<Event, Cause>)>, Fault> {
        self.next().events_by_ids(ids).await
    }

    async fn events(&self, after: Option<EventId>, limit: u32) -> Result<Page<Event>, Fault> {
        self.next().events(after, limit).await
    }

    async fn booking(&self, id: BookingId) -> Result<Option<Booking>, Fault> {
        self.next().booking(id).await
    }

    async fn bookings(
        &self,
        list: BookingList,
        status: Option<BookingStatus>,
        limit: u32,
    ) -> Result<Page<Booking>, Fault> {
        self.next().bookings(list, status, limit).await
    }

    async fn ledger(&self, event: EventId, after: u64, limit: u32) -> Result<Page<Entry>, Fault> {
        self.next().ledger(event, after, limit).await
    }

    async fn refunds(
        &self,
        status: Option<RefundStatus>,
        after: Option<RefundId>,
        limit: u32,
    ) -> Result<Page<Refund>, Fault> {
        self.next().refunds(status, after, limit).await
    }

    async fn refund(&self, id: RefundId) -> Result<Option<Refund>, Fault> {
        self.next().refund(id).await
    }

    async fn stats(&self) -> Result<Stats, Fault> {
        self.next().stats().await
    }

    async fn due_holds(
        &self,
        now: Timestamp,
        after: Option<DueHold>,
        limit: u32,
    ) -> Result<Vec<DueHold>, Fault> {
        self.next().due_holds(now, after, limit).await
    }

    async fn cancelled_events(
        &self,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Vec<CancelledEvent>, Fault> {
        self.next().cancelled_events(after, limit).await
    }

    async fn bookings_in_status(
        &self,
        event: EventId,
        status: BookingStatus,
        after: Option<BookingId>,
        limit: u32,
    ) -> Result<Vec<BookingId>, Fault> {
        self.next().bookings_in_status(event, status, after, limit).await
    }

    async fn prune_keys(&self, before: Timestamp, limit: u32) -> Result<u64, Fault> {
        self.next().prune_keys(before, limit).await
    }

    async fn cursors(
        &self,
        consumer: &Consumer,
        which: CursorFilter,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Vec<Cursor>, Fault> {
        self.next().cursors(consumer, which, after, limit).await
    }

    async fn entries_with_bookings(
        &self,
        event: EventId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<EntryWithBooking>, Fault> {
        self.next().entries_with_bookings(event, after, limit).await
    }

    async fn save_cursors(&self, consumer: &Consumer, processed: Vec<(EventId, u64)>) -> Result<(), Fault> {
        self.next().save_cursors(consumer, processed).await
    }

    async fn pending_entry_count(&self, consumer: &str) -> Result<u64, Fault> {
        self.next().pending_entry_count(consumer).await
    }

    async fn health(&self) -> Result<StoreHealth, Fault> {
        self.next().health().await
    }

    async fn audit(&self) -> Result<AuditReport, Fault> {
        self.next().audit().await
    }
}
