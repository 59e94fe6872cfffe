//! The relay's door: a stream that refuses whoever does not know what is last on it.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use domain::{Entry, EventId, RequestId, Timestamp};
use futures_util::future::BoxFuture;
use store::{Fault, Recorded};

/// What tells others what the ledger says. It may be away for as long as it likes.
#[async_trait]
pub trait Bell: Send + Sync {
    /// Whether it can be reached, as far as is known without asking.
    fn is_up(&self) -> bool;

    /// The stream, made where there is none.
    async fn open(&self) -> Result<Box<dyn Stream>, Trouble>;

    /// Tells whoever fills the stream which ledgers have grown. A hint, which may be lost.
    async fn hint(&self, grown: BTreeSet<EventId>);

    /// Tells an entry to those who do not read the stream, as well as can be.
    async fn announce(&self, recorded: &Recorded);
}

/// The stream, in the hands of one relay. What one relay appends arrives in that order, if it arrives; when it
/// does, the relay may have lost its turn long ago.
#[async_trait]
pub trait Stream: Send + Sync {
    /// Waits for the next hint of another instance. May be dropped and asked again.
    async fn hinted(&mut self) -> BTreeSet<EventId>;

    /// Everything that is on it.
    async fn survey(&self) -> Result<Survey, Trouble>;

    /// What it says about itself; nothing where it is gone.
    async fn glance(&self) -> Result<Option<Glance>, Trouble>;

    /// The last message of an event; nothing where there is none that is a ledger entry.
    async fn last_of(&self, event: EventId) -> Result<Option<Told>, Trouble>;

    /// Sends an entry, to be stored only directly `after` that; wherever it may be, where that is unset. Returns
    /// as soon as it is sent.
    async fn append(&self, recorded: &Recorded, after: Option<Last>) -> Result<Receipt, Trouble>;
}

/// Comes once the stream has said what became of a message. A refusal is [`Trouble::Changed`].
pub type Receipt = BoxFuture<'static, Result<Stored, Trouble>>;

/// What the stream says of a message that it has not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The message's sequence.
    pub sequence: u64,
    /// Whether it counts as a repetition. It was there a moment ago, and may be no more.
    pub duplicate: bool,
}

/// What is last on the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Last {
    /// The sequence of the message.
    pub sequence: u64,
    /// The entry that it is, by event and number, where that is known.
    pub entry: Option<(EventId, u64)>,
}

/// What the stream says about itself, as of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// When it was made: another stream of the same name is another.
    pub made: Timestamp,
    /// The sequence of its last message.
    pub last: u64,
    /// How many messages there are.
    pub messages: u64,
}

/// Everything that is on the stream, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// What it says about itself.
    pub glance: Glance,
    /// How many messages there are of each event.
    pub counts: HashMap<EventId, u64>,
}

/// Which entry a message is: enough to tell it from the same number of another ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its event.
    pub event: EventId,
    /// Its number.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// The request that caused it.
    pub request: RequestId,
}

impl From<&Entry> for Told {
    fn from(entry: &Entry) -> Self {
        Self { event: entry.event_id, seq: entry.seq, at: entry.at, request: entry.request.clone() }
    }
}

/// Why the stream cannot be filled now.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It does not answer, or not in time.
    #[error("the stream does not answer: {0}")]
    Away(String),
    /// Somebody else fills it, or it is not what it was: look again.
    #[error("the stream was changed by somebody else")]
    Changed,
    /// Somebody has to do something about it.
    #[error("{0}")]
    Operator(String),
    /// The database does not answer.
    #[error("the ledger cannot be read: {0}")]
    Store(#[from] Fault),
}
