//! The ports of the relay: the event bus, and a stream that stores a message only after the expected last
//! message.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use domain::{Entry, EventId, RequestId, Timestamp};
use store::{EntryWithBooking, Fault};

/// The event bus: publishes ledger entries to a stream, and wakes other relays. It may be unavailable for any
/// time.
#[async_trait]
pub trait EventBus: Send + Sync {
    /// The last known connection state; causes no request.
    fn is_up(&self) -> bool;

    /// Opens the stream. If it does not exist it is created, and its first message gets the sequence `first`.
    async fn open(&self, first: u64) -> Result<Box<dyn Stream>, StreamError>;

    /// Wakes the active relay for events whose ledgers have advanced. The message may be lost.
    async fn wake(&self, events: BTreeSet<EventId>);

    /// Publishes a notification for clients that do not read the stream; best effort, at most once.
    async fn publish_legacy_notification(&self, entry: &EntryWithBooking);
}

/// The stream, as opened by one relay. A message that is in flight may be stored long after the relay has
/// lost leadership.
#[async_trait]
pub trait Stream: Send + Sync {
    /// Waits for the next wake-up from another instance. Cancel safe.
    async fn next_wakeup(&mut self) -> BTreeSet<EventId>;

    /// The stream info and the number of messages of each event, from one point in time.
    async fn count_by_subject(&self) -> Result<StreamCounts, StreamError>;

    /// The current stream info; `None` if the stream no longer exists.
    async fn info(&self) -> Result<Option<StreamInfo>, StreamError>;

    /// The last message of an event and its sequence; `None` if the event has no messages.
    async fn last_message_of(&self, event: EventId) -> Result<Option<(u64, EntryId)>, StreamError>;

    /// Publishes an entry and waits for the publish ack. The message is stored only if the last message of
    /// its event has the sequence `after`, which is 0 if the event has none; unconditionally if `after` is
    /// `None`. A rejected message results in [`StreamError::Conflict`].
    async fn append(&self, entry: &EntryWithBooking, after: Option<u64>) -> Result<PublishAck, StreamError>;
}

/// The publish ack of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishAck {
    /// The sequence of the message.
    pub sequence: u64,
    /// True if the stream treats the message as a duplicate. The message was stored recently, but may have
    /// been deleted.
    pub duplicate: bool,
}

/// The stream info at one point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// The creation time: it distinguishes streams of the same name.
    pub created_at: Timestamp,
    /// The sequence of the last message; one less than the first sequence if the stream has never had a
    /// message.
    pub last: u64,
    /// The number of messages.
    pub messages: u64,
}

impl StreamInfo {
    /// The stream info after this number of messages has been appended.
    pub(super) fn after_appending(self, messages: u64) -> Self {
        Self { last: self.last + messages, messages: self.messages + messages, ..self }
    }

    /// The number of sequences up to the last one that have no message. Appending does not change it;
    /// deleting messages increases it.
    pub(super) fn missing_sequences(self) -> u64 {
        self.last.saturating_sub(self.messages)
    }
}

/// The contents of the stream at one point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamCounts {
    /// The stream info.
    pub info: StreamInfo,
    /// The number of messages of each event.
    pub counts: HashMap<EventId, u64>,
}

/// The identity of the entry of a message: it distinguishes the entry from the one with the same number in
/// another ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryId {
    /// The event.
    pub event: EventId,
    /// The number of the entry in the ledger.
    pub seq: u64,
    /// The time of the entry.
    pub at: Timestamp,
    /// The id of the request that caused the entry.
    pub request: RequestId,
}

impl From<&Entry> for EntryId {
    fn from(entry: &Entry) -> Self {
        Self { event: entry.event_id, seq: entry.seq, at: entry.at, request: entry.request.clone() }
    }
}

/// The reason why entries cannot be published now.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The stream does not respond, or not in time.
    #[error("the stream is unavailable: {0}")]
    Unavailable(String),
    /// Another relay publishes, or the stream was changed otherwise: it must be opened and counted again.
    #[error("another relay is active, or the stream was changed: {0}")]
    Conflict(String),
    /// An operator has to intervene.
    #[error("{0}")]
    NeedsOperator(String),
    /// The database cannot be read or written.
    #[error("the ledger cannot be read: {0}")]
    Store(#[from] Fault),
}
