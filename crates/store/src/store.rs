//! The seam between the engine and a database.

use std::sync::Arc;

use async_trait::async_trait;
use domain::{
    Answer, AuditReport, Booking, BookingId, BookingStatus, Command, Entry, Event, EventId, Refund, RefundId,
    RefundStatus, UserId,
};

use crate::Fault;

/// Where truth lives.
///
/// Promises of every implementation, checked by the conformance suite:
/// - a change and its ledger entries are both durable before its answer is given, or neither exists;
/// - commands of one batch take effect in their order, and batches one after the other, per event;
/// - a guard that misses fails its transaction: nothing that was read is written unless it still stands;
/// - one command that cannot be carried out does not take the others of its batch with it;
/// - what an answered command changed is seen by every read that begins later;
/// - [`Fault::OutcomeUnknown`] is allowed; a wrong answer is not.
#[async_trait]
pub trait Store: Send + Sync {
    /// Carries out a batch of at most [`crate::BATCH_MAX`] commands and answers each, in their order.
    ///
    /// Once begun, a batch is finished even if the caller goes away.
    async fn execute(&self, batch: Vec<Arc<Command>>) -> Vec<Reply>;

    /// One event.
    async fn event(&self, id: EventId) -> Result<Option<Event>, Fault>;

    /// Up to `limit` events made before `after`, newest first.
    async fn events(&self, after: Option<EventId>, limit: u32) -> Result<Page<Event>, Fault>;

    /// One booking.
    async fn booking(&self, id: BookingId) -> Result<Option<Booking>, Fault>;

    /// Up to `limit` bookings of a list, newest first, in `status` where one is given.
    async fn bookings(
        &self,
        list: BookingList,
        status: Option<BookingStatus>,
        limit: u32,
    ) -> Result<Page<Booking>, Fault>;

    /// Up to `limit` ledger entries of an event with numbers above `after`, oldest first.
    async fn ledger(&self, event: EventId, after: u64, limit: u32) -> Result<Page<Entry>, Fault>;

    /// Up to `limit` refunds made before `after`, newest first, in `status` where one is given.
    async fn refunds(
        &self,
        status: Option<RefundStatus>,
        after: Option<RefundId>,
        limit: u32,
    ) -> Result<Page<Refund>, Fault>;

    /// Derives every count again and compares, in one consistent snapshot beside running sales.
    async fn audit(&self) -> Result<AuditReport, Fault>;
}

/// What became of one command.
#[derive(Clone, Debug)]
pub enum Reply {
    /// It was decided; what it changed is durable.
    Answered(Answer),
    /// Undecided, and nothing changed for it: it lacks tickets while more overdue holds remain than one
    /// batch frees. Submit it again in the next batch.
    Carried,
    /// It was not carried out, or nobody can say.
    Failed(Fault),
}

/// Which bookings are listed, and where the page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BookingList {
    /// A user's, at one event where it is given, before a booking.
    OfUser {
        /// Who booked.
        user: UserId,
        /// What is attended.
        event: Option<EventId>,
        /// The last booking of the page before.
        after: Option<BookingId>,
    },
    /// An event's, before a ledger number.
    OfEvent {
        /// What is attended.
        event: EventId,
        /// The ledger number at which the last booking of the page before was created.
        after: Option<u64>,
    },
    /// All, before a booking.
    All {
        /// The last booking of the page before.
        after: Option<BookingId>,
    },
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The rows, in the list's order.
    pub rows: Vec<T>,
    /// Where the next page begins; unset on the last one.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// A page from one row more than it shows: the surplus row says that there is a next page.
    pub(crate) fn from_surplus(mut rows: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Self {
        let limit = limit as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(cursor);
        Self { rows, next }
    }
}
