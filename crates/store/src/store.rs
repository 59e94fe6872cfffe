//! The seam between the engine and a database.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use domain::{
    Answer, AuditReport, Booking, BookingId, BookingStatus, Command, Currency, Entry, Event, EventId, Refund,
    RefundId, RefundStatus, Tallies, Timestamp, UserId,
};

use crate::{Cause, Fault};

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
    async fn execute(&self, batch: Vec<Submission>) -> Vec<Reply>;

    /// As [`Store::execute`], but does not wait long for what others have locked: commands on events that they keep
    /// busy are answered [`Reply::Busy`], and the rest goes first. May be called while `execute` is under way with
    /// commands on other events.
    async fn try_execute(&self, batch: Vec<Submission>) -> Vec<Reply> {
        self.execute(batch).await
    }

    /// One event.
    async fn event(&self, id: EventId) -> Result<Option<Event>, Fault>;

    /// Those of the named events that exist, as of one moment, each or why it cannot be read. The caller bounds the
    /// list.
    async fn events_by_ids(&self, ids: Vec<EventId>) -> Result<Vec<(EventId, Result<Event, Cause>)>, Fault>;

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

    /// One refund.
    async fn refund(&self, id: RefundId) -> Result<Option<Refund>, Fault>;

    /// The tallies of all events together, per currency.
    async fn stats(&self) -> Result<Stats, Fault>;

    /// Up to `limit` unpaid holds whose time had passed at `now`, and by the store's own clock, oldest first, after a
    /// given one. Nothing is locked: by the time one is expired, somebody else may have been faster.
    async fn due_holds(
        &self,
        now: Timestamp,
        after: Option<DueHold>,
        limit: u32,
    ) -> Result<Vec<DueHold>, Fault>;

    /// Up to `limit` cancelled events by id, after a given one.
    async fn cancelled_events(
        &self,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Vec<CancelledEvent>, Fault>;

    /// Up to `limit` bookings of an event in a status by id, after a given one. Nothing is locked.
    async fn bookings_in_status(
        &self,
        event: EventId,
        status: BookingStatus,
        after: Option<BookingId>,
        limit: u32,
    ) -> Result<Vec<BookingId>, Fault>;

    /// Forgets up to `limit` answers that were kept before `before`; says how many.
    async fn prune_keys(&self, before: Timestamp, limit: u32) -> Result<u64, Fault>;

    /// How far up to `limit` events are on the stream that was made at `stream`, by id, after a given one.
    async fn cursors(
        &self,
        stream: Timestamp,
        which: CursorFilter,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Vec<Cursor>, Fault>;

    /// Up to `limit` ledger entries of an event with numbers above `after`, oldest first, each with its
    /// booking. Ends before an entry that cannot be read; [`Fault::Broken`] where that is the first.
    async fn entries_with_bookings(
        &self,
        event: EventId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<EntryWithBooking>, Fault>;

    /// Notes up to which number the ledgers of these events are on the stream that was made at `stream`. The
    /// caller bounds the list and names no event twice. A later note replaces an earlier one, also of another
    /// stream, whatever it says.
    async fn save_relay_cursors(
        &self,
        stream: Timestamp,
        published: Vec<(EventId, u64)>,
    ) -> Result<(), Fault>;

    /// How many ledger entries are above the number last noted of their event, whichever stream that was about. For
    /// who cannot ask the stream itself.
    async fn unpublished_entry_count(&self) -> Result<u64, Fault>;

    /// Whether commands can be carried out now, and what is not as it should be meanwhile. Changes nothing.
    async fn health(&self) -> Result<StoreHealth, Fault>;

    /// Derives every count again and compares, in one consistent snapshot beside running sales.
    async fn audit(&self) -> Result<AuditReport, Fault>;
}

/// How a store is in which commands can be carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// What is not as it should be, for operators: names of servers may stand in it.
    pub warnings: Vec<String>,
}

/// How far an event is on a stream of messages, as far as was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The event.
    pub event: EventId,
    /// The number of its last ledger entry.
    pub ledger: u64,
    /// The number of the last entry on the stream; 0 where there is none, or nothing was noted.
    pub published: u64,
}

/// Which events are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CursorFilter {
    /// All.
    All,
    /// Those whose ledger is ahead of what was noted.
    Behind,
}

/// A ledger entry, and the booking that it is about as it stands now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryWithBooking {
    /// The entry.
    pub entry: Entry,
    /// The booking; unset where the entry is about none.
    pub booking: Option<Booking>,
}

/// An unpaid hold whose time has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueHold {
    /// Its event.
    pub event: EventId,
    /// When its time passed, in microseconds since 1970 as they are stored: a corrupt value may be no instant.
    pub at_micros: i64,
    /// The booking.
    pub booking: BookingId,
}

/// A cancelled event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CancelledEvent {
    /// The event.
    pub event: EventId,
    /// Whether it has bookings that are pending or confirmed.
    pub has_live_bookings: bool,
}

/// The tallies of all events, per currency and in the order of the currencies' codes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Each currency that an event sells in, and the tallies of its events.
    pub per_currency: Vec<(Currency, Tallies)>,
}

/// A command on its way to the store.
#[derive(Clone, Debug)]
pub struct Submission {
    /// What is asked.
    pub command: Arc<Command>,
    /// Under which key the answer is kept, where the asker gave one.
    pub idempotency: Option<Arc<Idempotency>>,
}

/// Keeps an answer, so that the same request, repeated, is answered and not carried out again.
pub struct Idempotency {
    /// Who asks for what: the same key in another scope is another key.
    pub scope: String,
    /// The asker's key, 1 to 255 characters.
    pub key: String,
    /// A digest of what is asked. The same key with another digest is refused.
    pub fingerprint: [u8; 32],
    /// The answer as it will be given, now and later, byte for byte; `None` where it is not kept, because
    /// asking again may help.
    pub serialize_response: ResponseSerializer,
}

/// Turns an answer, given at an instant, into what is kept of it.
pub type ResponseSerializer = Box<dyn Fn(&Answer, Timestamp) -> Option<Vec<u8>> + Send + Sync>;

impl fmt::Debug for Idempotency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keep").field("scope", &self.scope).field("key", &self.key).finish_non_exhaustive()
    }
}

impl From<Command> for Submission {
    fn from(command: Command) -> Self {
        Self { command: Arc::new(command), idempotency: None }
    }
}

/// What became of one command.
#[derive(Clone, Debug)]
pub enum Reply {
    /// It was decided; what it changed is durable.
    Answered(Answer),
    /// It was decided, now or (`replayed`) earlier under the same key, and this is what is kept of the answer.
    Stored {
        /// What [`Keep::render`] made of the answer.
        answer: Arc<[u8]>,
        /// Whether the command was carried out earlier, and not now.
        replayed: bool,
    },
    /// Its key was given before, for something else. Nothing was done.
    KeyReused,
    /// Undecided, and nothing changed for it: it lacks tickets while more overdue holds remain than one
    /// batch frees. Submit it again in the next batch.
    Requeue,
    /// Undecided, and nothing changed for it: others keep what it needs locked. Only [`Store::try_execute`] says so;
    /// [`Store::execute`] waits for it longer.
    Busy,
    /// It was not carried out, or nobody can say.
    Failed(Fault),
}

impl Reply {
    /// Whether whoever reads it may take it for the acknowledgement of a change, made now or before.
    pub(crate) fn acknowledges_change(&self) -> bool {
        match self {
            Self::Answered(Answer::Refused(refusal)) => refusal.refund().is_some(),
            Self::Answered(_) | Self::Stored { .. } => true,
            Self::KeyReused | Self::Requeue | Self::Busy | Self::Failed(_) => false,
        }
    }
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
    /// An event's, before a booking.
    OfEvent {
        /// What is attended.
        event: EventId,
        /// The last booking of the page before.
        after: Option<BookingId>,
    },
    /// All, before a booking.
    All {
        /// The last booking of the page before.
        after: Option<BookingId>,
    },
}

impl BookingList {
    /// The same list after a booking.
    #[must_use]
    pub fn after(self, booking: BookingId) -> Self {
        let after = Some(booking);
        match self {
            Self::OfUser { user, event, .. } => Self::OfUser { user, event, after },
            Self::OfEvent { event, .. } => Self::OfEvent { event, after },
            Self::All { .. } => Self::All { after },
        }
    }
}

/// How many of a user's bookings, newest first, a filtered page of them looks at, and an order that lacks tickets for
/// the user's own overdue holds.
pub(crate) const USER_WINDOW: u32 = 1_000;

/// A page of a list. It may hold fewer rows than asked for, also none, although more follow: rows that cannot be read
/// are left out, and a filter looks at a bounded number of rows.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The rows, in the list's order.
    pub rows: Vec<T>,
    /// Where the next page begins; unset on the last one.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// A page from one row more than it shows, each with its key: the surplus row says that there is a next page. Rows
    /// that cannot be read are left out and logged.
    pub(crate) fn from_surplus<K: fmt::Display>(mut rows: Vec<(K, Result<T, Cause>)>, limit: u32) -> Self {
        let limit = limit as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|(key, _)| key.to_string());
        Self { rows: readable(rows), next }
    }
}

/// The rows that can be read; the others are logged.
pub(crate) fn readable<K: fmt::Display, T>(rows: Vec<(K, Result<T, Cause>)>) -> Vec<T> {
    let log = |key: &K, cause: &Cause| tracing::error!(%key, %cause, "a row cannot be read and is left out");
    rows.into_iter().filter_map(|(key, row)| row.inspect_err(|cause| log(&key, cause)).ok()).collect()
}

/// The rows up to the first that cannot be read; a fault where that is the very first.
pub(crate) fn readable_prefix<T>(rows: Vec<Result<T, Cause>>) -> Result<Vec<T>, Fault> {
    let mut read = Vec::with_capacity(rows.len());
    for row in rows {
        match row {
            Ok(row) => read.push(row),
            Err(cause) if read.is_empty() => return Err(Fault::Broken(cause)),
            Err(_) => break,
        }
    }
    Ok(read)
}
