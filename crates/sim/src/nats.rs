//! A simulated NATS server with the stream that all relays publish to, and the event bus of each process.
//!
//! The stream follows the rules of JetStream that the relay depends on. A publish with an expected last
//! sequence is rejected unless it is the sequence of the event's last message. A message id that is repeated
//! within two seconds is acknowledged as a duplicate and not stored. A purged stream continues its sequences,
//! and a new stream starts at the sequence that its relay names. Messages of one connection arrive in order.
//! Any of them may be lost, and some arrive long after the relay has timed out or crashed.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use domain::{Entry, EventId, Timestamp};
use engine::relay::{EntryId, EventBus, PublishAck, Stream, StreamCounts, StreamError, StreamInfo};
use store::EntryWithBooking;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::ports::ProcessContext;
use crate::scenario::Fault;
use crate::spawn::spawn;
use crate::world::World;

/// The window in which the stream detects a repeated message id.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(2);
/// Longest wait of a relay for an ack.
const ACK_WAIT_MAX: Duration = Duration::from_secs(2);
/// Longest delivery delay of a message: many lease durations.
const DELIVERY_DELAY_MAX: Duration = Duration::from_secs(30);
/// Longest time until a broken connection is replaced.
const RECONNECTS_WITHIN: Duration = Duration::from_secs(2);

/// The server: it stores the stream and delivers wake-ups.
pub(crate) struct SimulatedNats {
    world: Arc<World>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    stream: Option<SimulatedStream>,
    /// True if a stream with messages was deleted before.
    lost: bool,
    unavailable_until: Option<Instant>,
    /// Number of times that all connections were broken. Messages sent before the last break never arrive.
    connection_breaks: u64,
    subscribers: Vec<mpsc::UnboundedSender<BTreeSet<EventId>>>,
}

/// The stored stream.
struct SimulatedStream {
    created_at: Timestamp,
    /// Messages with their sequences, in order.
    messages: Vec<(u64, Entry)>,
    last_sequence: u64,
    /// Recently stored ids with their sequences and times, to detect duplicates.
    recent_ids: Vec<(MessageId, u64, Instant)>,
}

/// The id of a message: the event, and the sequence number in its ledger.
type MessageId = (EventId, u64);

impl SimulatedNats {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world, inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns all messages of the stream, in order.
    pub(crate) fn messages(&self) -> Vec<Entry> {
        let inner = self.inner();
        let messages = inner.stream.iter().flat_map(|stream| &stream.messages);
        messages.map(|(_, entry)| entry.clone()).collect()
    }

    /// Deletes the stream, as the loss of a disk or an operator does.
    pub(crate) fn delete(&self) {
        let mut inner = self.inner();
        inner.lost |= inner.stream.take().is_some_and(|stream| !stream.messages.is_empty());
    }

    /// Purges the stream: removes all messages, but keeps its sequences.
    pub(crate) fn purge(&self) {
        if let Some(stream) = &mut self.inner().stream {
            stream.messages.clear();
        }
    }

    /// Removes the last `count` messages although they were acknowledged, as a power cut does. It breaks all
    /// connections, too.
    pub(crate) fn truncate(&self, count: usize) {
        let mut inner = self.inner();
        inner.connection_breaks += 1;
        if let Some(stream) = &mut inner.stream {
            let left = stream.messages.len().saturating_sub(count);
            stream.last_sequence -= (stream.messages.len() - left) as u64;
            stream.messages.truncate(left);
            let last = stream.last_sequence;
            stream.recent_ids.retain(|(_, sequence, _)| *sequence <= last);
        }
    }

    /// Makes the server unreachable for this long.
    pub(crate) fn disconnect_for(&self, duration: Duration) {
        self.inner().unavailable_until = Some(Instant::now() + duration);
    }

    pub(crate) fn reconnect(&self) {
        self.inner().unavailable_until = None;
    }

    fn is_unavailable(&self) -> bool {
        self.inner().unavailable_until.is_some_and(|until| until > Instant::now())
    }

    /// Stores a message that has arrived. `expected_last` is the sequence that its event's last message must
    /// have.
    fn store(&self, entry: Entry, expected_last: Option<u64>) -> Result<PublishAck, StreamError> {
        let mut inner = self.inner();
        let Inner { stream, lost, .. } = &mut *inner;
        let Some(stream) = stream else { return Err(changed("no stream")) };
        let id = message_id(&entry);
        let now = Instant::now();
        stream.recent_ids.retain(|(.., at)| now.duration_since(*at) < DUPLICATE_WINDOW);
        if let Some((_, sequence, _)) = stream.recent_ids.iter().find(|(known, ..)| *known == id) {
            self.world.record_coverage("stream: duplicate detected");
            return Ok(PublishAck { sequence: *sequence, duplicate: true });
        }
        let last_of_event = stream.last_of(entry.event_id).map_or(0, |(sequence, _)| *sequence);
        if expected_last.is_some_and(|expected| expected != last_of_event) {
            self.world.record_coverage("stream: rejected by the expected last sequence");
            return Err(changed("wrong last sequence"));
        }
        if stream.messages.is_empty() && *lost {
            self.world.record_coverage("stream: refilled after a loss");
        }
        stream.last_sequence += 1;
        stream.recent_ids.push((id, stream.last_sequence, now));
        stream.messages.push((stream.last_sequence, entry));
        Ok(PublishAck { sequence: stream.last_sequence, duplicate: false })
    }
}

fn changed(why: &str) -> StreamError {
    StreamError::Conflict(why.to_owned())
}

fn message_id(entry: &Entry) -> MessageId {
    (entry.event_id, entry.seq)
}

impl SimulatedStream {
    fn new(created_at: Timestamp, first_sequence: u64) -> Self {
        let last_sequence = first_sequence - 1;
        Self { created_at, messages: Vec::new(), last_sequence, recent_ids: Vec::new() }
    }

    fn last_of(&self, event: EventId) -> Option<&(u64, Entry)> {
        self.messages.iter().rfind(|(_, entry)| entry.event_id == event)
    }

    fn info(&self) -> StreamInfo {
        let messages = self.messages.len() as u64;
        StreamInfo { created_at: self.created_at, last: self.last_sequence, messages }
    }
}

/// The event bus of one process, with injected faults.
#[derive(Clone)]
pub(crate) struct FaultyEventBus {
    pub(crate) context: ProcessContext,
    pub(crate) nats: Arc<SimulatedNats>,
}

impl FaultyEventBus {
    /// Sends a request to the server.
    async fn request<T>(
        &self,
        work: impl FnOnce(&mut Inner) -> Result<T, StreamError>,
    ) -> Result<T, StreamError> {
        self.context.delay(Fault::StreamSlow).await;
        if self.nats.is_unavailable() || self.context.world.should_inject(Fault::StreamNoReply) {
            return Err(StreamError::Unavailable("injected".to_owned()));
        }
        let reply = work(&mut self.nats.inner());
        self.context.process.wait_until_running().await;
        reply
    }

    /// Sends a request that fails if there is no stream.
    async fn stream_request<T>(&self, work: impl FnOnce(&SimulatedStream) -> T) -> Result<T, StreamError> {
        let missing = || StreamError::Unavailable("no stream".to_owned());
        self.request(|inner| inner.stream.as_ref().map(work).ok_or_else(missing)).await
    }
}

#[async_trait]
impl EventBus for FaultyEventBus {
    fn is_up(&self) -> bool {
        !self.nats.is_unavailable()
    }

    async fn open(&self, first: u64) -> Result<Box<dyn Stream>, StreamError> {
        let world = &self.context.world;
        let opened = self.request(|inner| {
            inner.stream.get_or_insert_with(|| SimulatedStream::new(world.now(), first));
            let (sender, receiver) = mpsc::unbounded_channel();
            inner.subscribers.retain(|subscriber| !subscriber.is_closed());
            if !inner.subscribers.is_empty() {
                world.record_coverage("stream: opened while another relay has it open");
            }
            inner.subscribers.push(sender);
            Ok((receiver, inner.connection_breaks))
        });
        let (wakeups, connection_breaks) = opened.await?;
        world.log(format_args!("relay {} opens the stream", self.context.number));
        let (outbox, in_flight) = mpsc::unbounded_channel();
        spawn(deliver(self.nats.clone(), in_flight));
        let last_arrival = Mutex::new(Instant::now());
        Ok(Box::new(StreamSession { bus: self.clone(), wakeups, outbox, last_arrival, connection_breaks }))
    }

    async fn wake(&self, events: BTreeSet<EventId>) {
        self.context.process.wait_until_running().await;
        if !self.nats.is_unavailable() && !self.context.world.should_inject(Fault::WakeupLost) {
            self.nats.inner().subscribers.retain(|subscriber| subscriber.send(events.clone()).is_ok());
        }
    }

    async fn publish_legacy_notification(&self, _recorded: &EntryWithBooking) {
        self.context.process.wait_until_running().await;
    }
}

/// The stream as one relay session has opened it.
struct StreamSession {
    bus: FaultyEventBus,
    wakeups: mpsc::UnboundedReceiver<BTreeSet<EventId>>,
    outbox: mpsc::UnboundedSender<InFlightMessage>,
    /// Arrival time of the last message sent: a message never arrives before an earlier one.
    last_arrival: Mutex<Instant>,
    /// The connection that the stream was opened on. Messages are not sent over a later one.
    connection_breaks: u64,
}

struct InFlightMessage {
    entry: Entry,
    expected_last: Option<u64>,
    arrives_at: Instant,
    connection_breaks: u64,
    ack: oneshot::Sender<Result<PublishAck, StreamError>>,
}

/// Delivers messages to the stream, also those of a sender that has crashed or timed out.
async fn deliver(nats: Arc<SimulatedNats>, mut in_flight: mpsc::UnboundedReceiver<InFlightMessage>) {
    while let Some(message) = in_flight.recv().await {
        let InFlightMessage { entry, expected_last, arrives_at, connection_breaks, ack } = message;
        sleep_until(arrives_at).await;
        if nats.is_unavailable() || nats.inner().connection_breaks != connection_breaks {
            continue;
        }
        if nats.world.should_inject(Fault::MessageLost) {
            // Its connection is lost, too: later messages use a new one.
            sleep(nats.world.random_duration(RECONNECTS_WITHIN)).await;
            continue;
        }
        let (event, seq) = message_id(&entry);
        let result = nats.store(entry, expected_last);
        nats.world.log(format_args!("stream: {event}:{seq}: {result:?}"));
        if !nats.world.should_inject(Fault::AckLost) {
            // The sender may have timed out.
            let _ = ack.send(result);
        }
    }
}

#[async_trait]
impl Stream for StreamSession {
    async fn next_wakeup(&mut self) -> BTreeSet<EventId> {
        let Some(events) = self.wakeups.recv().await else { return std::future::pending().await };
        self.bus.context.process.wait_until_running().await;
        events
    }

    async fn count_by_subject(&self) -> Result<StreamCounts, StreamError> {
        let count = |stream: &SimulatedStream| {
            let mut counts = HashMap::new();
            for (_, entry) in &stream.messages {
                *counts.entry(entry.event_id).or_default() += 1;
            }
            StreamCounts { info: stream.info(), counts }
        };
        self.bus.stream_request(count).await
    }

    async fn info(&self) -> Result<Option<StreamInfo>, StreamError> {
        self.bus.request(|inner| Ok(inner.stream.as_ref().map(SimulatedStream::info))).await
    }

    async fn last_message_of(&self, event: EventId) -> Result<Option<(u64, EntryId)>, StreamError> {
        let last = |stream: &SimulatedStream| {
            stream.last_of(event).map(|(sequence, entry)| (*sequence, EntryId::from(entry)))
        };
        self.bus.stream_request(last).await
    }

    async fn append(
        &self,
        entry: &EntryWithBooking,
        expected_last: Option<u64>,
    ) -> Result<PublishAck, StreamError> {
        let context = &self.bus.context;
        context.process.wait_until_running().await;
        if self.bus.nats.is_unavailable() {
            return Err(StreamError::Unavailable("injected".to_owned()));
        }
        let connection_breaks = self.bus.nats.inner().connection_breaks;
        if connection_breaks != self.connection_breaks {
            return Err(changed("another connection"));
        }
        let mut delay = Duration::from_millis(1 + context.world.random_below(20));
        if context.world.should_inject(Fault::MessageDelayed) {
            delay += context.world.random_duration(DELIVERY_DELAY_MAX);
        }
        let arrives_at = {
            let mut last = self.last_arrival.lock().unwrap_or_else(PoisonError::into_inner);
            *last = (*last).max(Instant::now() + delay);
            *last
        };
        let (ack, acked) = oneshot::channel();
        let entry = entry.entry.clone();
        let message = InFlightMessage { entry, expected_last, arrives_at, connection_breaks, ack };
        self.outbox
            .send(message)
            .map_err(|_| StreamError::Unavailable("the simulation is over".to_owned()))?;
        let acked = async {
            match acked.await {
                Ok(result) => result,
                // The message or its ack is lost, which the sender cannot notice.
                Err(_) => std::future::pending().await,
            }
        };
        let timed_out = |_| Err(StreamError::Unavailable("no ack in time".to_owned()));
        let result = timeout(ACK_WAIT_MAX, acked).await.unwrap_or_else(timed_out);
        context.process.wait_until_running().await;
        result
    }
}

#[cfg(test)]
mod tests {
    use domain::{Actor, EntryKind};
    use tokio::time::advance;

    use super::*;
    use crate::scenario::Scenario;

    const CREATED_AT: i64 = 1_800_000_000_000_000;

    fn nats(first: u64) -> SimulatedNats {
        let mut rng = fastrand::Rng::with_seed(0);
        let world = World::new(Scenario::draw(0, &mut rng), rng, false);
        let nats = SimulatedNats::new(world);
        replace_stream(&nats, first);
        nats
    }

    /// Replaces the stream by a new one.
    fn replace_stream(nats: &SimulatedNats, first: u64) {
        let created_at = Timestamp::from_micros(CREATED_AT).unwrap();
        nats.inner().stream = Some(SimulatedStream::new(created_at, first));
    }

    fn entry(event: u8, seq: u64) -> Entry {
        let at = Timestamp::from_micros(CREATED_AT).unwrap();
        Entry {
            event_id: EventId::new(at, [event; 10]),
            seq,
            kind: EntryKind::BookingCreated.into(),
            booking_id: None,
            refund_id: None,
            lines: Vec::new(),
            quantity: 1,
            from: None,
            to: None,
            available_after: 0,
            previous_seq: None,
            actor: Actor::System,
            request: "request".parse().unwrap(),
            trace: None,
            at,
        }
    }

    /// R14: entry 2 of event B is in flight, while the stream is deleted and refilled in another order, up to
    /// the very sequence that the message expects.
    async fn is_late_message_stored(first: u64, again: u64) -> bool {
        let nats = nats(first);
        nats.store(entry(b'a', 1), Some(0)).unwrap();
        let after = nats.store(entry(b'b', 1), Some(0)).unwrap().sequence;
        replace_stream(&nats, again);
        let first = nats.store(entry(b'b', 1), Some(0)).unwrap().sequence;
        nats.store(entry(b'b', 2), Some(first)).unwrap();
        // Longer than the duplicate window.
        advance(2 * DUPLICATE_WINDOW).await;
        nats.store(entry(b'b', 2), Some(after)).is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn r14_a_late_message_is_rejected_by_the_next_stream() {
        assert!(!is_late_message_stored(1_000_000, 2_000_000).await);
        assert!(is_late_message_stored(1, 1).await, "if both streams start at 1, as on servers before 2.10");
    }

    /// One of several messages in flight is lost, and another relay's message takes its sequence.
    #[tokio::test(start_paused = true)]
    async fn a_message_whose_predecessor_is_lost_is_rejected() {
        let nats = nats(1);
        let first = nats.store(entry(b'a', 1), Some(0)).unwrap().sequence;
        nats.store(entry(b'b', 1), Some(0)).unwrap();
        // Entry 2 of A is lost. Entry 3 cannot expect a sequence that was never acknowledged.
        assert!(nats.store(entry(b'a', 3), Some(first + 1)).is_err());
        assert!(nats.store(entry(b'a', 2), Some(first)).is_ok());
        assert!(nats.store(entry(b'a', 3), Some(first)).is_err(), "its sequence is taken");
    }
}
