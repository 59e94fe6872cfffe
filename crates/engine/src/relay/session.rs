//! One turn at session the stream.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error as _;
use std::sync::atomic::{AtomicU64, Ordering};

use domain::EventId;
use domain::sabotage::{Guard, removed};
use futures_util::{StreamExt as _, TryStreamExt as _};
use store::{CursorFilter, EntryWithBooking, Fault};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::port::{EntryId, Stream, StreamError, StreamInfo};
use super::{Relay, RelayDependencies};
use crate::CommitListener as _;
use crate::limit::{
    NOTIFICATION_AGE_MAX, RELAY_CHECK_EVERY, RELAY_EVENTS_MAX, RELAY_PAGE, RELAY_READS_MAX, RELAY_SAVE_EVERY,
    RELAY_SCAN_EVERY,
};

/// Everything that is known of the stream in one turn.
pub(super) struct RelaySession<'a> {
    relay: &'a Relay,
    dependencies: &'a RelayDependencies,
    stream: Box<dyn Stream>,
    /// What the stream said of itself when the turn began.
    initial_info: StreamInfo,
    /// Messages that this turn has appended.
    appended: AtomicU64,
    tails: HashMap<EventId, Tail>,
    unsaved_cursors: BTreeMap<EventId, u64>,
    cursors_saved_at: Instant,
    /// Events whose entries cannot be read.
    unreadable_events: BTreeSet<EventId>,
    /// Reads of entries that may be under way at once.
    reads: Semaphore,
}

/// Where the messages of an event end on the stream.
#[derive(Clone, Copy)]
struct Tail {
    /// The number of the event's last entry there; 0 where there is none.
    seq: u64,
    /// The sequence of that message, once the stream has said it in this turn; 0 where there is none. Never a
    /// prediction: the next message is stored only if this one is still the event's last.
    sequence: Option<u64>,
}

impl Tail {
    const EMPTY: Self = Self { seq: 0, sequence: Some(0) };

    /// Of an event with so many messages.
    fn of(count: u64) -> Self {
        if count == 0 { Self::EMPTY } else { Self { seq: count, sequence: None } }
    }
}

/// What became of one attempt to extend an event's messages.
struct PageResult {
    event: EventId,
    tail: Tail,
    /// Why the entries after the tail cannot be read.
    unreadable: Option<Fault>,
}

impl<'a> RelaySession<'a> {
    /// Looks at the stream, made where there is none, and at all ledgers.
    pub(super) async fn open(
        relay: &'a Relay,
        dependencies: &'a RelayDependencies,
    ) -> Result<Self, StreamError> {
        // Sequences of one stream are never those of another of its name: it starts at the microsecond of its
        // creation, and no server stores a million messages per second. So a delayed message for a stream that was
        // deleted is refused by the next one.
        let first = u64::try_from(dependencies.clock.now().micros()).unwrap_or(1);
        let stream = dependencies.event_bus.open(first).await?;
        let counts = stream.count_by_subject().await?;
        let mut session = Self {
            relay,
            dependencies,
            stream,
            initial_info: counts.info,
            appended: AtomicU64::new(0),
            tails: HashMap::new(),
            unsaved_cursors: BTreeMap::new(),
            cursors_saved_at: Instant::now(),
            unreadable_events: BTreeSet::new(),
            reads: Semaphore::new(RELAY_READS_MAX),
        };
        session.compare_with_ledgers(counts.counts).await?;
        relay.update_status(|status| {
            status.is_active = true;
            status.error = None;
        });
        Ok(session)
    }

    /// Compares what is on the stream with the ledgers: it must be the beginning of each.
    async fn compare_with_ledgers(&mut self, mut counts: HashMap<EventId, u64>) -> Result<(), StreamError> {
        let (mut after, mut behind) = (None, 0);
        loop {
            let page = self
                .dependencies
                .store
                .cursors(self.initial_info.created_at, CursorFilter::All, after, RELAY_PAGE)
                .await?;
            let Some(last) = page.last() else { break };
            after = Some(last.event);
            for cursor in page {
                let mut count = counts.remove(&cursor.event).unwrap_or(0);
                if removed(Guard::StreamCounted) {
                    count = cursor.published;
                }
                behind +=
                    cursor.ledger.checked_sub(count).ok_or_else(|| stream_ahead_of_ledger(cursor.event))?;
                let mut tail = Tail::of(count);
                // A update_status that is not true is corrected: what the stream has is what counts.
                if count != cursor.published {
                    tail.sequence = Some(self.sequence_of(cursor.event, tail).await?);
                    self.unsaved_cursors.insert(cursor.event, count);
                }
                self.tails.insert(cursor.event, tail);
            }
        }
        if let Some(stranger) = counts.into_keys().min() {
            return Err(stream_ahead_of_ledger(stranger));
        }
        self.relay.update_status(|status| status.pending = behind);
        Ok(())
    }

    /// The sequence of an event's last message, which must be the entry of that number: so all before it are there,
    /// and the stream tells of the same ledger.
    async fn sequence_of(&self, event: EventId, tail: Tail) -> Result<u64, StreamError> {
        if let Some(sequence) = tail.sequence {
            return Ok(sequence);
        }
        let Some((sequence, last_entry)) = self.stream.last_message_of(event).await? else {
            return Err(StreamError::Changed(format!("messages of {event} are gone")));
        };
        if is_unguarded() || removed(Guard::StreamPredecessor) {
            return Ok(sequence);
        }
        let Some(last) = self.read_entries(event, tail.seq - 1, 1).await?.pop() else {
            return Err(stream_ahead_of_ledger(event));
        };
        if last_entry == EntryId::from(&last.entry) {
            return Ok(sequence);
        }
        // Another relay may have gone on since the survey.
        let expected = self.initial_info.after_appending(self.appended.load(Ordering::Relaxed));
        if self.stream.info().await? != Some(expected) {
            return Err(StreamError::Changed(format!("another message of {event} is the last one")));
        }
        Err(StreamError::Operator(format!(
            "what the stream tells of {event} is not the ledger of this database, or has gaps; if the database was \
             restored, delete the stream, and it is filled anew"
        )))
    }

    /// Fills the stream, and looks after it, until something ends the turn.
    pub(super) async fn run(&mut self) -> StreamError {
        let (mut check, mut scan) = (ticker(RELAY_CHECK_EVERY), ticker(RELAY_SCAN_EVERY));
        loop {
            // In this order: what comes by the clock leaves room for the rest, and a hint takes along what has
            // grown here.
            let step = tokio::select! {
                biased;
                _ = check.tick() => self.verify_stream().await,
                _ = scan.tick() => self.publish_all_pending().await,
                mut grown = self.stream.next_wakeup() => {
                    grown.append(&mut self.relay.take_advanced());
                    self.publish_pending(grown).await
                }
                () = self.relay.wake.notified() => self.publish_pending(self.relay.take_advanced()).await,
            };
            if let Err(error) = step {
                return error;
            }
        }
    }

    /// Puts on the stream what these ledgers have that it has not, up to a page of each. One that cannot be read
    /// keeps no other waiting.
    async fn publish_pending(&mut self, events: BTreeSet<EventId>) -> Result<(), StreamError> {
        let extended = futures_util::stream::iter(events)
            .map(|event| self.publish_page(event))
            .buffer_unordered(RELAY_EVENTS_MAX)
            .try_collect::<Vec<PageResult>>()
            .await?;
        for PageResult { event, tail, unreadable } in extended {
            if self.tails.insert(event, tail).unwrap_or(Tail::EMPTY).seq < tail.seq {
                self.unsaved_cursors.insert(event, tail.seq);
            }
            match unreadable {
                None => _ = self.unreadable_events.remove(&event),
                Some(fault) if self.unreadable_events.insert(event) => {
                    let cause = fault.source().map(ToString::to_string);
                    tracing::error!(%event, %fault, cause, "an event's entries cannot be told; others are");
                }
                Some(_) => {}
            }
        }
        self.save_cursors(false).await
    }

    /// The same for every ledger that is longer than was cursors_saved_at: where a hint was lost, or there was none.
    async fn publish_all_pending(&mut self) -> Result<(), StreamError> {
        let (mut after, mut waiting) = (None, 0);
        self.save_cursors(true).await?;
        loop {
            let page = self
                .dependencies
                .store
                .cursors(self.initial_info.created_at, CursorFilter::Behind, after, RELAY_PAGE)
                .await?;
            let Some(last) = page.last() else { break };
            after = Some(last.event);
            let behind: u64 = page.iter().map(|cursor| cursor.ledger.saturating_sub(cursor.published)).sum();
            self.relay.update_status(|status| status.pending = waiting + behind);
            self.publish_pending(page.iter().map(|cursor| cursor.event).collect()).await?;
            for cursor in page {
                let tail = self.tails.get(&cursor.event).map_or(0, |tail| tail.seq);
                waiting += cursor.ledger.saturating_sub(tail);
            }
        }
        self.save_cursors(true).await?;
        let error = self.unreadable_events.first().map(|event| {
            format!(
                "entries of {event} cannot be read, and are not told; `boxoffice audit` says what is wrong"
            )
        });
        self.relay.update_status(|status| (status.pending, status.error) = (waiting, error));
        self.relay.record_pending(waiting);
        Ok(())
    }

    /// Appends up to a page of an event's entries.
    async fn publish_page(&self, event: EventId) -> Result<PageResult, StreamError> {
        let mut tail = self.tails.get(&event).copied().unwrap_or(Tail::EMPTY);
        let unreadable = match self.append_page(event, &mut tail).await {
            Ok(()) => None,
            Err(StreamError::Store(fault @ Fault::Broken(_))) => Some(fault),
            Err(error) => return Err(error),
        };
        Ok(PageResult { event, tail, unreadable })
    }

    /// As [`store::Store::recorded`], with few reads at once: however many events are behind, others read, too.
    async fn read_entries(
        &self,
        event: EventId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<EntryWithBooking>, Fault> {
        let _permit = self.reads.acquire().await;
        self.dependencies.store.entries_with_bookings(event, after, limit).await
    }

    /// One message of an event after the other: each is sent once the stream has acknowledged the one before.
    async fn append_page(&self, event: EventId, tail: &mut Tail) -> Result<(), StreamError> {
        let page = self.read_entries(event, tail.seq, RELAY_PAGE).await?;
        if page.is_empty() {
            return Ok(());
        }
        let is_full = page.len() == RELAY_PAGE as usize;
        let mut after = self.sequence_of(event, *tail).await?;
        for recorded in page {
            let stored = self.stream.append(&recorded, (!is_unguarded()).then_some(after)).await?;
            // A message that counts as a repetition may be on the stream, or have been purged from it.
            if stored.duplicate && !is_unguarded() {
                return Err(StreamError::Changed(format!("a message of {event} is there already")));
            }
            after = stored.sequence;
            *tail = Tail { seq: recorded.entry.seq, sequence: Some(after) };
            self.on_ack(&recorded).await;
        }
        if is_full {
            self.relay.ledgers_advanced(&[event]);
        }
        Ok(())
    }

    /// Notes that an entry is on the stream, and announces it to those who do not read that.
    async fn on_ack(&self, recorded: &EntryWithBooking) {
        let (now, entry) = (self.dependencies.clock.now(), &recorded.entry);
        let age = u64::try_from(now.micros().saturating_sub(entry.at.micros())).unwrap_or(0);
        self.appended.fetch_add(1, Ordering::Relaxed);
        self.relay.update_status(|status| {
            status.published += 1;
            status.lag_micros = age;
            status.pending = status.pending.saturating_sub(1);
        });
        self.relay.record_published();
        // Old news on a stream that is filled anew were announced once before, and a mail is not sent twice.
        if u128::from(age) <= NOTIFICATION_AGE_MAX.as_micros() {
            self.dependencies.event_bus.publish_legacy_notification(recorded).await;
        }
    }

    /// Writes down how far it has got: now and then, since only a later turn reads it.
    async fn save_cursors(&mut self, now: bool) -> Result<(), StreamError> {
        if self.unsaved_cursors.is_empty() || !(now || self.cursors_saved_at.elapsed() >= RELAY_SAVE_EVERY) {
            return Ok(());
        }
        let notes: Vec<(EventId, u64)> = std::mem::take(&mut self.unsaved_cursors).into_iter().collect();
        for page in notes.chunks(RELAY_PAGE as usize) {
            self.dependencies.store.save_relay_cursors(self.initial_info.created_at, page.to_vec()).await?;
        }
        self.cursors_saved_at = Instant::now();
        Ok(())
    }

    /// Looks whether the stream still has what was put on it. Other relays may have appended.
    async fn verify_stream(&self) -> Result<(), StreamError> {
        if is_unguarded() || removed(Guard::StreamVerified) {
            return Ok(());
        }
        let last = self.tails.values().filter_map(|tail| tail.sequence).max().unwrap_or(0);
        match self.stream.info().await? {
            None => Err(StreamError::Changed("it is gone".to_owned())),
            Some(now) if now.created_at != self.initial_info.created_at => {
                Err(StreamError::Changed("it is another one".to_owned()))
            }
            Some(now)
                if now.missing_sequences() != self.initial_info.missing_sequences()
                    || now.last < last.max(self.initial_info.last) =>
            {
                Err(StreamError::Changed("it has lost messages".to_owned()))
            }
            Some(_) => Ok(()),
        }
    }
}

/// Ticks at once, and then so often; late ticks are not made up for.
fn ticker(period: std::time::Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Tests take the guard away, and the trust in the stream above one's own numbers, to show that they notice.
fn is_unguarded() -> bool {
    removed(Guard::StreamSequence)
}

fn stream_ahead_of_ledger(event: EventId) -> StreamError {
    StreamError::Operator(format!(
        "the stream knows more of {event} than the ledger: was the database restored, or is the stream another \
         database's? Nothing is overwritten; delete the stream, and it is filled anew"
    ))
}
