//! One session of the relay: the state of one stream as it is known, from opening it to the first error.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error as _;
use std::sync::atomic::{AtomicU64, Ordering};

use domain::{EventId, guard};
use futures_util::{StreamExt as _, TryStreamExt as _};
use store::{Consumer, CursorFilter, EntryWithBooking, Fault};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::port::{EntryId, Stream, StreamError, StreamInfo};
use super::{Relay, RelayDependencies};
use crate::CommitListener as _;
use crate::limit::{
    NOTIFICATION_AGE_MAX, RELAY_CHECK_EVERY, RELAY_EVENTS_MAX, RELAY_PAGE, RELAY_READS_MAX, RELAY_SAVE_EVERY,
    RELAY_SCAN_EVERY,
};

/// The state of one session.
pub(super) struct RelaySession<'a> {
    relay: &'a Relay,
    dependencies: &'a RelayDependencies,
    stream: Box<dyn Stream>,
    /// The stream info when the session started.
    initial_info: StreamInfo,
    /// Number of messages that this session has appended.
    appended: AtomicU64,
    tails: HashMap<EventId, Tail>,
    unsaved_cursors: BTreeMap<EventId, u64>,
    cursors_saved_at: Instant,
    /// Events whose entries cannot be decoded.
    unreadable_events: BTreeSet<EventId>,
    /// Bounds the concurrent reads of entries.
    read_permits: Semaphore,
}

/// The end of an event's messages on the stream.
#[derive(Clone, Copy)]
struct Tail {
    /// The number, in the ledger, of the event's last entry on the stream; 0 if there is none.
    ledger_seq: u64,
    /// The sequence of its message on the stream, once the stream has returned it in this session; 0 if there
    /// is none. Never a prediction: the next message is stored only if this one is still the event's last.
    stream_seq: Option<u64>,
}

impl Tail {
    const EMPTY: Self = Self { ledger_seq: 0, stream_seq: Some(0) };

    /// The tail of an event with this number of messages.
    fn of(count: u64) -> Self {
        if count == 0 { Self::EMPTY } else { Self { ledger_seq: count, stream_seq: None } }
    }
}

/// The result of publishing one page of an event's entries.
struct PageResult {
    event: EventId,
    tail: Tail,
    /// The reason why the entries after the tail cannot be decoded.
    unreadable: Option<Fault>,
}

impl<'a> RelaySession<'a> {
    /// Opens the stream, creating it if necessary, and compares it with all ledgers.
    pub(super) async fn open(
        relay: &'a Relay,
        dependencies: &'a RelayDependencies,
    ) -> Result<Self, StreamError> {
        // The sequences of one stream never occur in another stream of the same name: a stream starts at the
        // microsecond of its creation, and no server stores a million messages per second. So a delayed
        // message for a deleted stream is rejected by the next one.
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
            read_permits: Semaphore::new(RELAY_READS_MAX),
        };
        session.compare_with_ledgers(counts.counts).await?;
        relay.update_status(|status| {
            status.is_active = true;
            status.error = None;
        });
        Ok(session)
    }

    /// The relay as a consumer of the ledgers.
    fn consumer(&self) -> Consumer {
        Consumer::relay(self.initial_info.created_at)
    }

    /// Compares the stream with the ledgers: the messages of each event must be a prefix of its ledger.
    async fn compare_with_ledgers(&mut self, mut counts: HashMap<EventId, u64>) -> Result<(), StreamError> {
        let mut after = None;
        let mut behind = 0;
        loop {
            let page = self
                .dependencies
                .store
                .cursors(&self.consumer(), CursorFilter::All, after, RELAY_PAGE)
                .await?;
            let Some(last) = page.last() else { break };
            after = Some(last.event);
            for cursor in page {
                let mut count = counts.remove(&cursor.event).unwrap_or(0);
                if !guard!(StreamCount) {
                    count = cursor.processed;
                }
                behind +=
                    cursor.ledger.checked_sub(count).ok_or_else(|| stream_ahead_of_ledger(cursor.event))?;
                let mut tail = Tail::of(count);
                // A wrong cursor is corrected: the stream is authoritative.
                if count != cursor.processed {
                    tail.stream_seq = Some(self.sequence_of(cursor.event, tail).await?);
                    self.unsaved_cursors.insert(cursor.event, count);
                }
                self.tails.insert(cursor.event, tail);
            }
        }
        if let Some(unknown) = counts.into_keys().min() {
            return Err(stream_ahead_of_ledger(unknown));
        }
        self.relay.update_status(|status| status.pending = behind);
        Ok(())
    }

    /// The sequence of an event's last message, which must be the entry with that number. Then all entries
    /// before it are on the stream, and the stream belongs to this ledger.
    async fn sequence_of(&self, event: EventId, tail: Tail) -> Result<u64, StreamError> {
        if let Some(sequence) = tail.stream_seq {
            return Ok(sequence);
        }
        let Some((sequence, last_entry)) = self.stream.last_message_of(event).await? else {
            return Err(StreamError::Conflict(format!("messages of {event} were deleted")));
        };
        if !(is_guarded() && guard!(StreamPredecessor)) {
            return Ok(sequence);
        }
        let Some(last) = self.read_entries(event, tail.ledger_seq - 1, 1).await?.pop() else {
            return Err(stream_ahead_of_ledger(event));
        };
        if last_entry == EntryId::from(&last.entry) {
            return Ok(sequence);
        }
        // Another relay may have appended messages since they were counted.
        let expected = self.initial_info.after_appending(self.appended.load(Ordering::Relaxed));
        if self.stream.info().await? != Some(expected) {
            return Err(StreamError::Conflict(format!("another message of {event} is the last one now")));
        }
        Err(StreamError::NeedsOperator(format!(
            "the messages of {event} on the stream are not the ledger entries of this database, or have \
             gaps; if the database was restored, delete the stream, and it is filled again"
        )))
    }

    /// Publishes entries and verifies the stream until an error ends the session.
    pub(super) async fn run(&mut self) -> StreamError {
        let (mut check, mut scan) = (ticker(RELAY_CHECK_EVERY), ticker(RELAY_SCAN_EVERY));
        loop {
            // In this order: the periodic work leaves room for the rest, and a wake-up from another instance
            // includes the events that have advanced here.
            let step = tokio::select! {
                biased;
                _ = check.tick() => self.verify_stream().await,
                _ = scan.tick() => self.publish_all_pending().await,
                mut events = self.stream.next_wakeup() => {
                    events.append(&mut self.relay.take_advanced());
                    self.publish_pending(events).await
                }
                () = self.relay.wake.notified() => self.publish_pending(self.relay.take_advanced()).await,
            };
            if let Err(error) = step {
                return error;
            }
        }
    }

    /// Publishes the pending entries of these events, up to a page of each. An event whose entries cannot be
    /// decoded does not delay the others.
    async fn publish_pending(&mut self, events: BTreeSet<EventId>) -> Result<(), StreamError> {
        let results = futures_util::stream::iter(events)
            .map(|event| self.publish_page(event))
            .buffer_unordered(RELAY_EVENTS_MAX)
            .try_collect::<Vec<PageResult>>()
            .await?;
        for PageResult { event, tail, unreadable } in results {
            if self.tails.insert(event, tail).unwrap_or(Tail::EMPTY).ledger_seq < tail.ledger_seq {
                self.unsaved_cursors.insert(event, tail.ledger_seq);
            }
            match unreadable {
                None => _ = self.unreadable_events.remove(&event),
                Some(fault) if self.unreadable_events.insert(event) => {
                    let cause = fault.source().map(ToString::to_string);
                    tracing::error!(
                        %event, %fault, cause,
                        "cannot publish the entries of one event; other events are not affected"
                    );
                }
                Some(_) => {}
            }
        }
        self.save_cursors(false).await
    }

    /// Publishes the pending entries of all ledgers that are ahead of their cursors, for lost or missing
    /// wake-ups.
    async fn publish_all_pending(&mut self) -> Result<(), StreamError> {
        let mut after = None;
        let mut waiting = 0;
        self.save_cursors(true).await?;
        loop {
            let page = self
                .dependencies
                .store
                .cursors(&self.consumer(), CursorFilter::Behind, after, RELAY_PAGE)
                .await?;
            let Some(last) = page.last() else { break };
            after = Some(last.event);
            let behind: u64 = page.iter().map(|cursor| cursor.ledger.saturating_sub(cursor.processed)).sum();
            self.relay.update_status(|status| status.pending = waiting + behind);
            self.publish_pending(page.iter().map(|cursor| cursor.event).collect()).await?;
            for cursor in page {
                let tail = self.tails.get(&cursor.event).map_or(0, |tail| tail.ledger_seq);
                waiting += cursor.ledger.saturating_sub(tail);
            }
        }
        self.save_cursors(true).await?;
        let error = self.unreadable_events.first().map(|event| {
            format!(
                "entries of {event} cannot be decoded and are not published; `boxoffice audit` reports the \
                 cause"
            )
        });
        self.relay.update_status(|status| (status.pending, status.error) = (waiting, error));
        self.relay.record_pending(waiting);
        Ok(())
    }

    /// Publishes up to a page of an event's entries.
    async fn publish_page(&self, event: EventId) -> Result<PageResult, StreamError> {
        let mut tail = self.tails.get(&event).copied().unwrap_or(Tail::EMPTY);
        let unreadable = match self.append_page(event, &mut tail).await {
            Ok(()) => None,
            Err(StreamError::Store(fault @ Fault::Broken(_))) => Some(fault),
            Err(error) => return Err(error),
        };
        Ok(PageResult { event, tail, unreadable })
    }

    /// As [`store::Store::entries_with_bookings`], with few concurrent reads, so that other reads are not
    /// delayed when many events have pending entries.
    async fn read_entries(
        &self,
        event: EventId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<EntryWithBooking>, Fault> {
        let _permit = self.read_permits.acquire().await;
        self.dependencies.store.entries_with_bookings(event, after, limit).await
    }

    /// Appends an event's entries one after the other: each is sent after the ack of the previous one.
    async fn append_page(&self, event: EventId, tail: &mut Tail) -> Result<(), StreamError> {
        let page = self.read_entries(event, tail.ledger_seq, RELAY_PAGE).await?;
        if page.is_empty() {
            return Ok(());
        }
        let is_full = page.len() == RELAY_PAGE as usize;
        let mut after = self.sequence_of(event, *tail).await?;
        for item in page {
            let ack = self.stream.append(&item, is_guarded().then_some(after)).await?;
            // A duplicate message may be on the stream, or may have been purged from it.
            if ack.duplicate && is_guarded() {
                return Err(StreamError::Conflict(format!("a message of {event} exists already")));
            }
            after = ack.sequence;
            *tail = Tail { ledger_seq: item.entry.seq, stream_seq: Some(after) };
            self.on_ack(&item).await;
        }
        if is_full {
            self.relay.ledgers_advanced(&[event]);
        }
        Ok(())
    }

    /// Records that an entry is on the stream, and publishes a notification for clients that do not read the
    /// stream.
    async fn on_ack(&self, item: &EntryWithBooking) {
        let now = self.dependencies.clock.now();
        let entry = &item.entry;
        let age = u64::try_from(now.micros().saturating_sub(entry.at.micros())).unwrap_or(0);
        self.appended.fetch_add(1, Ordering::Relaxed);
        self.relay.update_status(|status| {
            status.published += 1;
            status.lag_micros = age;
            status.pending = status.pending.saturating_sub(1);
        });
        self.relay.record_published();
        // If a stream is filled again, notifications of its old entries were published before, and an e-mail
        // must not be sent twice.
        if u128::from(age) <= NOTIFICATION_AGE_MAX.as_micros() {
            self.dependencies.event_bus.publish_legacy_notification(item).await;
        }
    }

    /// Saves the cursors, but not more often than necessary: only a later session reads them.
    async fn save_cursors(&mut self, force: bool) -> Result<(), StreamError> {
        if self.unsaved_cursors.is_empty() || !(force || self.cursors_saved_at.elapsed() >= RELAY_SAVE_EVERY)
        {
            return Ok(());
        }
        let cursors: Vec<(EventId, u64)> = std::mem::take(&mut self.unsaved_cursors).into_iter().collect();
        for page in cursors.chunks(RELAY_PAGE as usize) {
            self.dependencies.store.save_cursors(&self.consumer(), page.to_vec()).await?;
        }
        self.cursors_saved_at = Instant::now();
        Ok(())
    }

    /// Verifies that the stream still has the appended messages. Other relays may have appended more.
    async fn verify_stream(&self) -> Result<(), StreamError> {
        if !(is_guarded() && guard!(StreamVerification)) {
            return Ok(());
        }
        let last = self.tails.values().filter_map(|tail| tail.stream_seq).max().unwrap_or(0);
        match self.stream.info().await? {
            None => Err(StreamError::Conflict("it was deleted".to_owned())),
            Some(now) if now.created_at != self.initial_info.created_at => {
                Err(StreamError::Conflict("it was replaced".to_owned()))
            }
            Some(now)
                if now.missing_sequences() != self.initial_info.missing_sequences()
                    || now.last < last.max(self.initial_info.last) =>
            {
                Err(StreamError::Conflict("it has lost messages".to_owned()))
            }
            Some(_) => Ok(()),
        }
    }
}

/// An interval that ticks immediately, and delays late ticks instead of catching up.
fn ticker(period: std::time::Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// True unless tests have removed the guard, and with it the precedence of the stream over the relay's own
/// numbers.
fn is_guarded() -> bool {
    guard!(StreamSequence)
}

fn stream_ahead_of_ledger(event: EventId) -> StreamError {
    StreamError::NeedsOperator(format!(
        "the stream has more messages of {event} than the ledger has entries: the database was restored, or \
         the stream belongs to another database. Nothing is overwritten; delete the stream, and it is filled \
         again"
    ))
}
