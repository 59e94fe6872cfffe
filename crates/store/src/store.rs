//! The interface between the engine and a database.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use domain::{
    Answer, AuditReport, Booking, BookingId, BookingStatus, Command, Currency, Entry, Event, EventId,
    ExternalRef, Refund, RefundId, RefundStatus, Refusal, Tallies, Timestamp, UserId, guard,
};

use crate::{Cause, Fault};

/// The system of record.
///
/// Guarantees of every implementation, checked by the conformance suite:
/// - a change and its ledger entries are both durable before the reply is returned, or neither exists;
/// - per event, commands of one batch are applied in order, and batches one after the other;
/// - a guard that misses fails its transaction: a row is written only if it is unchanged since it was read;
/// - a command that fails does not fail the other commands of its batch;
/// - every read that starts after a reply sees the change that the reply acknowledges;
/// - [`Fault::OutcomeUnknown`] is allowed; a wrong reply is not.
#[async_trait]
pub trait Store: Send + Sync {
    /// Executes a batch of at most [`crate::BATCH_MAX`] commands. Returns one reply per command, in their
    /// order.
    ///
    /// Once started, a batch runs to its end even if the caller drops the future.
    async fn execute(&self, batch: Vec<Submission>) -> Vec<Reply>;

    /// As [`Store::execute`], but waits only a short time for rows that other sessions have locked. Commands
    /// on such events get [`Reply::Busy`], and the rest is executed. May be called while `execute` is running
    /// with commands on other events.
    async fn try_execute(&self, batch: Vec<Submission>) -> Vec<Reply> {
        self.execute(batch).await
    }

    /// The event with this id.
    async fn event(&self, id: EventId) -> Result<Option<Event>, Fault>;

    /// The events with these ids that exist, read in one snapshot; for each the event, or the reason why its
    /// rows cannot be decoded. The caller bounds the list.
    async fn events_by_ids(&self, ids: Vec<EventId>) -> Result<Vec<(EventId, Result<Event, Cause>)>, Fault>;

    /// Up to `limit` events with ids below `after`, newest first.
    async fn events(&self, after: Option<EventId>, limit: u32) -> Result<Page<Event>, Fault>;

    /// The booking with this id.
    async fn booking(&self, id: BookingId) -> Result<Option<Booking>, Fault>;

    /// Up to `limit` bookings of a list, newest first; only those in `status` if it is set.
    async fn bookings(
        &self,
        list: BookingList,
        status: Option<BookingStatus>,
        limit: u32,
    ) -> Result<Page<Booking>, Fault>;

    /// Up to `limit` ledger entries of an event with numbers above `after`, oldest first.
    async fn ledger(&self, event: EventId, after: u64, limit: u32) -> Result<Page<Entry>, Fault>;

    /// Up to `limit` refunds with ids below `after`, newest first; only those in `status` if it is set.
    async fn refunds(
        &self,
        status: Option<RefundStatus>,
        after: Option<RefundId>,
        limit: u32,
    ) -> Result<Page<Refund>, Fault>;

    /// The refund with this id.
    async fn refund(&self, id: RefundId) -> Result<Option<Refund>, Fault>;

    /// The summed tallies of all events, per currency.
    async fn stats(&self) -> Result<Stats, Fault>;

    /// Up to `limit` overdue holds, whose deadline has passed both at `now` and by the store's own clock,
    /// oldest first, after the hold `after`. Takes no lock: another instance may free a hold first.
    async fn due_holds(
        &self,
        now: Timestamp,
        after: Option<DueHold>,
        limit: u32,
    ) -> Result<Vec<DueHold>, Fault>;

    /// Up to `limit` cancelled events in the order of their ids, after `after`.
    async fn cancelled_events(
        &self,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Vec<CancelledEvent>, Fault>;

    /// Up to `limit` bookings of an event in a status, in the order of their ids, after `after`. Takes no
    /// lock.
    async fn bookings_in_status(
        &self,
        event: EventId,
        status: BookingStatus,
        after: Option<BookingId>,
        limit: u32,
    ) -> Result<Vec<BookingId>, Fault>;

    /// Deletes up to `limit` stored responses that are older than `before`. Returns the number deleted.
    async fn prune_keys(&self, before: Timestamp, limit: u32) -> Result<u64, Fault>;

    /// Up to `limit` cursors of a consumer, in the order of the event ids, after `after`.
    async fn cursors(
        &self,
        consumer: &Consumer,
        which: CursorFilter,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Vec<Cursor>, Fault>;

    /// Up to `limit` ledger entries of an event with numbers above `after`, oldest first, each with its
    /// booking. Ends before the first entry that cannot be decoded; [`Fault::Broken`] if that is the first of
    /// all.
    async fn entries_with_bookings(
        &self,
        event: EventId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<EntryWithBooking>, Fault>;

    /// Saves per event the number of the last ledger entry that a consumer has processed. The caller bounds
    /// the list and names no event twice. A cursor replaces the previous one of its consumer and event
    /// unconditionally, even if that one is of another destination or further ahead.
    async fn save_cursors(&self, consumer: &Consumer, processed: Vec<(EventId, u64)>) -> Result<(), Fault>;

    /// Number of ledger entries above the saved cursor of their event, also if that is of another
    /// destination. For callers that cannot query the destination itself.
    async fn pending_entry_count(&self, consumer: &str) -> Result<u64, Fault>;

    /// Checks that commands can be executed now, and returns warnings. Changes nothing.
    ///
    /// # Errors
    ///
    /// A fault if commands cannot be executed.
    async fn health(&self) -> Result<StoreHealth, Fault>;

    /// Recomputes every count from the ledger and the bookings and compares it with the stored one, in one
    /// consistent snapshot, while sales continue.
    async fn audit(&self) -> Result<AuditReport, Fault>;
}

/// The state of a store that can execute commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// Warnings about a degraded state, for operators only: they may contain names of servers.
    pub warnings: Vec<String>,
}

/// A consumer of the ledgers, with cursors of its own: it processes the entries of each event in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// The name, 1 to 64 characters.
    pub name: Arc<str>,
    /// The time at which the destination was created to which the consumer copies the entries. Cursors of
    /// another destination do not count.
    pub destination: Timestamp,
}

impl Consumer {
    /// The name of the consumer that publishes the ledgers to the stream.
    pub const RELAY: &str = "relay";

    /// The relay, which publishes to the stream created at this time.
    #[must_use]
    pub fn relay(stream: Timestamp) -> Self {
        Self { name: Self::RELAY.into(), destination: stream }
    }
}

/// The saved position of a consumer in the ledger of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The event.
    pub event: EventId,
    /// The number of its last ledger entry.
    pub ledger: u64,
    /// The number of the last entry that the consumer has processed; 0 if no cursor was saved.
    pub processed: u64,
}

/// Selects the events whose cursors are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CursorFilter {
    /// All events.
    All,
    /// Events whose ledger is ahead of their saved cursor.
    Behind,
}

/// A ledger entry, and the current state of the booking that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryWithBooking {
    /// The entry.
    pub entry: Entry,
    /// The booking; `None` if the entry belongs to no booking.
    pub booking: Option<Booking>,
}

/// An overdue hold: its deadline has passed, and its tickets are not freed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueHold {
    /// The event of the booking.
    pub event: EventId,
    /// The stored deadline, in microseconds since 1970. A corrupt value may be outside of [`Timestamp`]'s
    /// range.
    pub at_micros: i64,
    /// The booking.
    pub booking: BookingId,
}

/// A cancelled event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CancelledEvent {
    /// The event.
    pub event: EventId,
    /// True if the event has pending or confirmed bookings.
    pub has_live_bookings: bool,
}

/// The tallies of all events, per currency.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Each currency in which an event sells, with the summed tallies of those events, in the order of the
    /// currency codes.
    pub per_currency: Vec<(Currency, Tallies)>,
}

/// A command, submitted to the store.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The command.
    pub command: Arc<Command>,
    /// The key under which the response is stored, if the caller sent one.
    pub idempotency: Option<Arc<Idempotency>>,
}

/// An idempotency key: the response is stored under it in the command's transaction, so that a repeated
/// request gets the stored response and is not executed again.
pub struct Idempotency {
    /// The caller and the operation: the same key in another scope is another key.
    pub scope: String,
    /// The caller's key, 1 to 255 characters.
    pub key: String,
    /// A digest of the request. The same key with another digest is refused ([`Reply::KeyReused`]).
    pub fingerprint: [u8; 32],
    /// Serializes the response, to be returned now and later, byte for byte; `None` if it is not stored
    /// because a retry may succeed.
    pub serialize_response: ResponseSerializer,
}

impl Idempotency {
    /// The scope of the stored response.
    pub(crate) fn scope(&self) -> &str {
        if guard!(KeyScope) { &self.scope } else { "" }
    }
}

/// Serializes the answer to a command, decided at the given instant, into the response to store.
pub type ResponseSerializer = Box<dyn Fn(&Answer, Timestamp) -> Option<Vec<u8>> + Send + Sync>;

impl fmt::Debug for Idempotency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Idempotency");
        fields.field("scope", &self.scope).field("key", &self.key).finish_non_exhaustive()
    }
}

impl From<Command> for Submission {
    fn from(command: Command) -> Self {
        Self { command: Arc::new(command), idempotency: None }
    }
}

/// The result of a command that was decided.
#[derive(Clone, Debug)]
pub enum CommandOutput {
    /// The answer of the rules.
    Fresh(Answer),
    /// The stored response, created now or (`replayed`) earlier under the same idempotency key. It may be a
    /// refusal.
    Stored {
        /// The bytes that [`Idempotency::serialize_response`] returned.
        response: Arc<[u8]>,
        /// True if the command was executed earlier, and not now.
        replayed: bool,
    },
}

/// The result of one command.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The command was decided; its change is durable.
    Decided(CommandOutput),
    /// The key was used before, with another request. Nothing was done.
    KeyReused,
    /// Undecided and unchanged: tickets are missing while more overdue holds remain than one batch frees.
    /// Submit the command again in the next batch.
    Requeue,
    /// Undecided and unchanged: another session has locked a row that the command needs. Returned only by
    /// [`Store::try_execute`]; [`Store::execute`] waits longer and then fails.
    Busy,
    /// The command was not executed, or its outcome is unknown.
    Failed(Fault),
}

impl Reply {
    /// The answer, if the command was decided now and no response was stored.
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Decided(CommandOutput::Fresh(answer)) => Some(answer),
            Self::Decided(CommandOutput::Stored { .. })
            | Self::KeyReused
            | Self::Requeue
            | Self::Busy
            | Self::Failed(_) => None,
        }
    }

    /// True if this reply acknowledges a change to the client, made by this command or an earlier one.
    pub(crate) fn acknowledges_change(&self) -> bool {
        match self {
            // The caller learns of the refund, or that its order may have been executed before.
            Self::Decided(CommandOutput::Fresh(Answer::Refused(refusal))) => {
                refusal.refund().is_some() || *refusal == Refusal::ExternalRefInUse
            }
            Self::Decided(_) => true,
            Self::KeyReused | Self::Requeue | Self::Busy | Self::Failed(_) => false,
        }
    }
}

/// A list of bookings, and the start of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BookingList {
    /// The bookings of a user.
    OfUser {
        /// The owner of the bookings.
        user: UserId,
        /// If set, only bookings of this event.
        event: Option<EventId>,
        /// The last booking of the previous page; `None` for the first page.
        after: Option<BookingId>,
    },
    /// The bookings with an external reference: at most one for each event.
    WithExternalRef {
        /// The external reference.
        external_ref: ExternalRef,
        /// If set, only bookings of this user.
        user: Option<UserId>,
        /// If set, only the booking of this event.
        event: Option<EventId>,
        /// The last booking of the previous page; `None` for the first page.
        after: Option<BookingId>,
    },
    /// The bookings of an event.
    OfEvent {
        /// The event of the bookings.
        event: EventId,
        /// The last booking of the previous page; `None` for the first page.
        after: Option<BookingId>,
    },
    /// All bookings.
    All {
        /// The last booking of the previous page; `None` for the first page.
        after: Option<BookingId>,
    },
}

impl BookingList {
    /// The same list, with the page that starts after `booking`.
    #[must_use]
    pub fn after(self, booking: BookingId) -> Self {
        let after = Some(booking);
        match self {
            Self::OfUser { user, event, .. } => Self::OfUser { user, event, after },
            Self::WithExternalRef { external_ref, user, event, .. } => {
                Self::WithExternalRef { external_ref, user, event, after }
            }
            Self::OfEvent { event, .. } => Self::OfEvent { event, after },
            Self::All { .. } => Self::All { after },
        }
    }
}

/// A page of a list. It may contain fewer rows than the limit, even none, although more follow: rows that
/// cannot be decoded are left out, and a filter reads a bounded number of rows.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The rows, in the list's order.
    pub rows: Vec<T>,
    /// The cursor of the next page; `None` on the last page.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// A page from up to `limit + 1` rows, each with its key: the surplus row shows that there is a next
    /// page. Rows that cannot be decoded are left out and logged.
    pub(crate) fn from_surplus<K: fmt::Display>(mut rows: Vec<(K, Result<T, Cause>)>, limit: u32) -> Self {
        let limit = limit as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|(key, _)| key.to_string());
        Self { rows: readable(rows), next }
    }
}

/// The rows that could be decoded; the others are logged.
pub(crate) fn readable<K: fmt::Display, T>(rows: Vec<(K, Result<T, Cause>)>) -> Vec<T> {
    let log = |key: &K, cause: &Cause| tracing::error!(%key, %cause, "row cannot be decoded; it is left out");
    rows.into_iter().filter_map(|(key, row)| row.inspect_err(|cause| log(&key, cause)).ok()).collect()
}

/// The rows up to the first that could not be decoded; a fault if that is the first of all.
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
