//! The stream that all relays fill, by the rules of the real one, and the way to it.
//!
//! The rules that matter: whoever names the sequence of an event's last message is refused where that is not so; a
//! name that comes again within two seconds is called a repetition and not stored; an emptied stream goes on counting,
//! and one that is made anew counts from where its relay says. What a relay sends over one connection arrives in its
//! order, any of it may be lost, and some arrives long after the relay has given up waiting, or is dead.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use domain::{Entry, EventId, Timestamp};
use engine::relay::{EntryId, EventBus, PublishAck, Stream, StreamCounts, StreamError, StreamInfo};
use store::EntryWithBooking;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::fleet::spawn;
use crate::ports::ProcessContext;
use crate::scenario::Fault;
use crate::world::World;

/// How long the stream knows a name again.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(2);
/// How long a relay waits for what the stream says.
const ACK_WAIT_MAX: Duration = Duration::from_secs(2);
/// Longest way of a message: many lives of a lease.
const DELIVERY_DELAY_MAX: Duration = Duration::from_secs(30);

/// Longest time until there is a connection again.
const RECONNECTS_WITHIN: Duration = Duration::from_secs(2);

/// What keeps the stream, and passes hints on.
pub(crate) struct SimulatedNats {
    world: Arc<World>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    stream: Option<SimulatedStream>,
    /// Whether there was one before that is gone.
    lost: bool,
    away_until: Option<Instant>,
    /// How often all connections were broken: what was sent before never arrives.
    breaks: u64,
    listeners: Vec<mpsc::UnboundedSender<BTreeSet<EventId>>>,
}

/// The stream itself.
struct SimulatedStream {
    made: Timestamp,
    /// Each with its sequence.
    messages: Vec<(u64, Entry)>,
    last: u64,
    names: Vec<(MessageId, u64, Instant)>,
}

/// What a message is called: the event, and the number in its ledger.
type MessageId = (EventId, u64);

impl SimulatedNats {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world, inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that is on the stream, in its order.
    pub(crate) fn messages(&self) -> Vec<Entry> {
        let inner = self.inner();
        let messages = inner.stream.iter().flat_map(|kept| &kept.messages);
        messages.map(|(_, entry)| entry.clone()).collect()
    }

    /// The stream is gone, as after a disk was lost or somebody deleted it.
    pub(crate) fn delete(&self) {
        let mut inner = self.inner();
        inner.lost |= inner.stream.take().is_some_and(|kept| !kept.messages.is_empty());
    }

    /// Nothing is on it any more, but it is the same stream.
    pub(crate) fn empty(&self) {
        if let Some(kept) = &mut self.inner().stream {
            kept.messages.clear();
        }
    }

    /// The last few messages are gone although their relays know that they arrived, as after a power cut, which breaks
    /// all connections, too.
    pub(crate) fn cut(&self, messages: usize) {
        let mut inner = self.inner();
        inner.breaks += 1;
        if let Some(kept) = &mut inner.stream {
            let left = kept.messages.len().saturating_sub(messages);
            kept.last -= (kept.messages.len() - left) as u64;
            kept.messages.truncate(left);
            let last = kept.last;
            kept.names.retain(|(_, sequence, _)| *sequence <= last);
        }
    }

    /// Nobody reaches it for so long.
    pub(crate) fn go_away(&self, time: Duration) {
        self.inner().away_until = Some(Instant::now() + time);
    }

    pub(crate) fn come_back(&self) {
        self.inner().away_until = None;
    }

    fn is_away(&self) -> bool {
        self.inner().away_until.is_some_and(|until| until > Instant::now())
    }

    /// A message arrives.
    fn take(&self, entry: Entry, after: Option<u64>) -> Result<PublishAck, StreamError> {
        let mut inner = self.inner();
        let Inner { stream, lost, .. } = &mut *inner;
        let Some(kept) = stream else { return Err(changed("no stream")) };
        let (name, now) = (name(&entry), Instant::now());
        kept.names.retain(|(.., at)| now.duration_since(*at) < DUPLICATE_WINDOW);
        if let Some((_, sequence, _)) = kept.names.iter().find(|(known, ..)| *known == name) {
            self.world.saw("stream: calls a message a repetition");
            return Ok(PublishAck { sequence: *sequence, duplicate: true });
        }
        let last_of_event = kept.last_of(entry.event_id).map_or(0, |(sequence, _)| *sequence);
        if after.is_some_and(|after| after != last_of_event) {
            self.world.saw("stream: refuses a message, by its event's last one");
            return Err(changed("wrong last sequence"));
        }
        if kept.messages.is_empty() && *lost {
            self.world.saw("stream: filled again");
        }
        kept.last += 1;
        kept.names.push((name, kept.last, now));
        kept.messages.push((kept.last, entry));
        Ok(PublishAck { sequence: kept.last, duplicate: false })
    }
}

fn changed(why: &str) -> StreamError {
    StreamError::Changed(why.to_owned())
}

fn name(entry: &Entry) -> MessageId {
    (entry.event_id, entry.seq)
}

impl SimulatedStream {
    fn new(made: Timestamp, first: u64) -> Self {
        Self { made, messages: Vec::new(), last: first - 1, names: Vec::new() }
    }

    fn last_of(&self, event: EventId) -> Option<&(u64, Entry)> {
        self.messages.iter().rfind(|(_, entry)| entry.event_id == event)
    }

    fn glance(&self) -> StreamInfo {
        StreamInfo { created_at: self.made, last: self.last, messages: self.messages.len() as u64 }
    }
}

/// One process's way to it.
#[derive(Clone)]
pub(crate) struct FaultyEventBus {
    pub(crate) place: ProcessContext,
    pub(crate) nats: Arc<SimulatedNats>,
}

impl FaultyEventBus {
    /// Asks the tower something.
    async fn ask<T>(
        &self,
        question: impl FnOnce(&mut Inner) -> Result<T, StreamError>,
    ) -> Result<T, StreamError> {
        self.place.delay(Fault::StreamSlow).await;
        if self.nats.is_away() || self.place.world.should_inject(Fault::StreamSilent) {
            return Err(StreamError::Unavailable("injected".to_owned()));
        }
        let answer = question(&mut self.nats.inner());
        self.place.life.step().await;
        answer
    }

    async fn ask_of_it<T>(&self, question: impl FnOnce(&SimulatedStream) -> T) -> Result<T, StreamError> {
        let gone = || StreamError::Unavailable("no stream".to_owned());
        self.ask(|inner| inner.stream.as_ref().map(question).ok_or_else(gone)).await
    }
}

#[async_trait]
impl EventBus for FaultyEventBus {
    fn is_up(&self) -> bool {
        !self.nats.is_away()
    }

    async fn open(&self, first: u64) -> Result<Box<dyn Stream>, StreamError> {
        let world = &self.place.world;
        let listened = self.ask(|inner| {
            inner.stream.get_or_insert_with(|| SimulatedStream::new(world.now(), first));
            let (speaks, hears) = mpsc::unbounded_channel();
            inner.listeners.retain(|listener| !listener.is_closed());
            if !inner.listeners.is_empty() {
                world.saw("stream: opened while another relay has it");
            }
            inner.listeners.push(speaks);
            Ok((hears, inner.breaks))
        });
        let (hints, breaks) = listened.await?;
        world.note(format_args!("relay {} opens the stream", self.place.number));
        let (sender, line) = mpsc::unbounded_channel();
        spawn(carry(self.nats.clone(), line));
        let arrives = Mutex::new(Instant::now());
        Ok(Box::new(StreamSession { bell: self.clone(), hints, line: sender, arrives, breaks }))
    }

    async fn wake(&self, grown: BTreeSet<EventId>) {
        self.place.life.step().await;
        if !self.nats.is_away() && !self.place.world.should_inject(Fault::HintLost) {
            self.nats.inner().listeners.retain(|listener| listener.send(grown.clone()).is_ok());
        }
    }

    async fn publish_legacy_notification(&self, _recorded: &EntryWithBooking) {
        self.place.life.step().await;
    }
}

/// The stream during one turn of a relay.
struct StreamSession {
    bell: FaultyEventBus,
    hints: mpsc::UnboundedReceiver<BTreeSet<EventId>>,
    line: mpsc::UnboundedSender<InFlightMessage>,
    /// When the last message that was sent arrives: none arrives before one that was sent earlier.
    arrives: Mutex<Instant>,
    /// The connection that it was opened on: nothing is sent over a later one.
    breaks: u64,
}

struct InFlightMessage {
    entry: Entry,
    after: Option<u64>,
    arrives: Instant,
    breaks: u64,
    answer: oneshot::Sender<Result<PublishAck, StreamError>>,
}

/// Carries messages to the stream, whatever has become of who sent them.
async fn carry(nats: Arc<SimulatedNats>, mut line: mpsc::UnboundedReceiver<InFlightMessage>) {
    while let Some(InFlightMessage { entry, after, arrives, breaks, answer }) = line.recv().await {
        sleep_until(arrives).await;
        if nats.is_away() || nats.inner().breaks != breaks {
            continue;
        }
        if nats.world.should_inject(Fault::MessageLost) {
            // With its connection: what was sent after it comes over another one.
            sleep(nats.world.moment(RECONNECTS_WITHIN)).await;
            continue;
        }
        let message = name(&entry);
        let said = nats.take(entry, after);
        nats.world.note(format_args!("stream: {}:{}: {said:?}", message.0, message.1));
        if !nats.world.should_inject(Fault::AnswerLost) {
            // Whoever sent it may be gone.
            let _ = answer.send(said);
        }
    }
}

#[async_trait]
impl Stream for StreamSession {
    async fn next_wakeup(&mut self) -> BTreeSet<EventId> {
        let Some(grown) = self.hints.recv().await else { return std::future::pending().await };
        self.bell.place.life.step().await;
        grown
    }

    async fn count_by_subject(&self) -> Result<StreamCounts, StreamError> {
        let survey = |kept: &SimulatedStream| {
            let mut counts = HashMap::new();
            for (_, entry) in &kept.messages {
                *counts.entry(entry.event_id).or_default() += 1;
            }
            StreamCounts { info: kept.glance(), counts }
        };
        self.bell.ask_of_it(survey).await
    }

    async fn info(&self) -> Result<Option<StreamInfo>, StreamError> {
        self.bell.ask(|inner| Ok(inner.stream.as_ref().map(SimulatedStream::glance))).await
    }

    async fn last_message_of(&self, event: EventId) -> Result<Option<(u64, EntryId)>, StreamError> {
        let last = |kept: &SimulatedStream| {
            kept.last_of(event).map(|(sequence, entry)| (*sequence, EntryId::from(entry)))
        };
        self.bell.ask_of_it(last).await
    }

    async fn append(
        &self,
        recorded: &EntryWithBooking,
        after: Option<u64>,
    ) -> Result<PublishAck, StreamError> {
        let place = &self.bell.place;
        place.life.step().await;
        if self.bell.nats.is_away() {
            return Err(StreamError::Unavailable("injected".to_owned()));
        }
        let breaks = self.bell.nats.inner().breaks;
        if breaks != self.breaks {
            return Err(changed("another connection"));
        }
        let mut way = Duration::from_millis(1 + place.world.below(20));
        if place.world.should_inject(Fault::MessageLate) {
            way += place.world.moment(DELIVERY_DELAY_MAX);
        }
        let arrives = {
            let mut last = self.arrives.lock().unwrap_or_else(PoisonError::into_inner);
            *last = (*last).max(Instant::now() + way);
            *last
        };
        let (answer, answered) = oneshot::channel();
        let sent = InFlightMessage { entry: recorded.entry.clone(), after, arrives, breaks, answer };
        self.line.send(sent).map_err(|_| StreamError::Unavailable("the simulation is over".to_owned()))?;
        let heard = async {
            match answered.await {
                Ok(said) => said,
                // Lost: nobody says so.
                Err(_) => std::future::pending().await,
            }
        };
        let late = |_| Err(StreamError::Unavailable("no answer in time".to_owned()));
        let said = timeout(ACK_WAIT_MAX, heard).await.unwrap_or_else(late);
        place.life.step().await;
        said
    }
}

#[cfg(test)]
mod tests {
    use domain::{Actor, EntryKind};
    use tokio::time::advance;

    use super::*;
    use crate::scenario::Scenario;

    const MADE: i64 = 1_800_000_000_000_000;

    fn nats(first: u64) -> SimulatedNats {
        let mut rng = fastrand::Rng::with_seed(0);
        let world = World::new(Scenario::draw(0, &mut rng), rng, false);
        let nats = SimulatedNats::new(world);
        begin(&nats, first);
        nats
    }

    /// Another stream takes the place of the last one.
    fn begin(nats: &SimulatedNats, first: u64) {
        let made = Timestamp::from_micros(MADE).unwrap();
        nats.inner().stream = Some(SimulatedStream::new(made, first));
    }

    fn entry(event: u8, seq: u64) -> Entry {
        let at = Timestamp::from_micros(MADE).unwrap();
        Entry {
            event_id: EventId::new(at, [event; 10]),
            seq,
            kind: EntryKind::BookingCreated,
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

    /// R14: entry 2 of event B waits on its way, while the stream is deleted and filled again in another order, up to
    /// the very place that the message names.
    async fn is_late_message_taken(first: u64, again: u64) -> bool {
        let nats = nats(first);
        nats.take(entry(b'a', 1), Some(0)).unwrap();
        let after = nats.take(entry(b'b', 1), Some(0)).unwrap().sequence;
        begin(&nats, again);
        let first = nats.take(entry(b'b', 1), Some(0)).unwrap().sequence;
        nats.take(entry(b'b', 2), Some(first)).unwrap();
        // For longer than the stream knows a name again.
        advance(2 * DUPLICATE_WINDOW).await;
        nats.take(entry(b'b', 2), Some(after)).is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn r14_a_late_message_is_refused_by_the_next_stream() {
        assert!(!is_late_message_taken(1_000_000, 2_000_000).await);
        assert!(is_late_message_taken(1, 1).await, "where both count from 1, as on servers before 2.10");
    }

    /// One message of a row is lost, and another relay's take its place.
    #[tokio::test(start_paused = true)]
    async fn a_message_whose_predecessor_is_lost_is_refused() {
        let nats = nats(1);
        let first = nats.take(entry(b'a', 1), Some(0)).unwrap().sequence;
        nats.take(entry(b'b', 1), Some(0)).unwrap();
        // Entry 2 of A is lost; entry 3 cannot name what was never acknowledged.
        assert!(nats.take(entry(b'a', 3), Some(first + 1)).is_err());
        assert!(nats.take(entry(b'a', 2), Some(first)).is_ok());
        assert!(nats.take(entry(b'a', 3), Some(first)).is_err(), "its place is taken");
    }
}
