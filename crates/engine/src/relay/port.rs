//! The relay's door: a stream that refuses whoever does not know an event's last message.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use domain::{Entry, EventId, RequestId, Timestamp};
use store::{EntryWithBooking, Fault};

/// What tells others what the ledger says. It may be away for as long as it likes.
#[async_trait]
pub trait EventBus: Send + Sync {
    /// Whether it can be reached, as far as is known without asking.
    fn is_up(&self) -> bool;

    /// The stream. Where there is none it is created, and its first message gets the sequence `first`.
    async fn open(&self, first: u64) -> Result<Box<dyn Stream>, StreamError>;

    /// Tells whoever fills the stream which ledgers have grown. A hint, which may be lost.
    async fn wake(&self, grown: BTreeSet<EventId>);

    /// Tells an entry to those who do not read the stream, as well as can be.
    async fn publish_legacy_notification(&self, recorded: &EntryWithBooking);
}

/// The stream, in the hands of one relay. A message may arrive long after the relay has lost its turn.
#[async_trait]
pub trait Stream: Send + Sync {
    /// Waits for the next hint of another instance. May be dropped and asked again.
    async fn next_wakeup(&mut self) -> BTreeSet<EventId>;

    /// Everything that is on it.
    async fn count_by_subject(&self) -> Result<StreamCounts, StreamError>;

    /// What it says about itself; nothing where it is gone.
    async fn info(&self) -> Result<Option<StreamInfo>, StreamError>;

    /// The last message of an event, and its sequence; nothing where there is none that is a ledger entry.
    async fn last_message_of(&self, event: EventId) -> Result<Option<(u64, EntryId)>, StreamError>;

    /// Sends an entry, to be stored only while the last message of its event has the sequence `after`, 0 for none;
    /// whatever it is, where that is unset. Returns once the stream has acknowledged it. A refusal is
    /// [`Trouble::Changed`].
    async fn append(
        &self,
        recorded: &EntryWithBooking,
        after: Option<u64>,
    ) -> Result<PublishAck, StreamError>;
}

/// What the stream says of a message that it has not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishAck {
    /// The message's sequence.
    pub sequence: u64,
    /// Whether it counts as a repetition. It was there a moment ago, and may be no more.
    pub duplicate: bool,
}

/// What the stream says about itself, as of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// When it was created_at: another stream of the same name is another.
    pub created_at: Timestamp,
    /// The sequence of its last message; where it was always empty, the one before the first.
    pub last: u64,
    /// How many messages there are.
    pub messages: u64,
}

impl StreamInfo {
    /// What it says of itself once so many messages more are there.
    pub(super) fn after_appending(self, messages: u64) -> Self {
        Self { last: self.last + messages, messages: self.messages + messages, ..self }
    }

    /// Sequences up to the last one without a message. An append leaves their number as it is; whatever removes
    /// messages raises it.
    pub(super) fn missing_sequences(self) -> u64 {
        self.last.saturating_sub(self.messages)
    }
}

/// Everything that is on the stream, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamCounts {
    /// What it says about itself.
    pub info: StreamInfo,
    /// How many messages there are of each event.
    pub counts: HashMap<EventId, u64>,
}

/// Which entry a message is: enough to tell it from the same number of another ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryId {
    /// Its event.
    pub event: EventId,
    /// Its number.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// The request that caused it.
    pub request: RequestId,
}

impl From<&Entry> for EntryId {
    fn from(entry: &Entry) -> Self {
        Self { event: entry.event_id, seq: entry.seq, at: entry.at, request: entry.request.clone() }
    }
}

/// Why the stream cannot be filled now.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// It does not answer, or not in time.
    #[error("the stream does not answer: {0}")]
    Unavailable(String),
    /// Somebody else fills it, or it is not what it was: look again.
    #[error("another relay fills the stream, or it was changed: {0}")]
    Changed(String),
    /// Somebody has to do something about it.
    #[error("{0}")]
    Operator(String),
    /// The database does not answer.
    #[error("the ledger cannot be read: {0}")]
    Store(#[from] Fault),
}
