//! One turn at filling the stream.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::future::IntoFuture as _;

use async_nats::Subscriber;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::Stream;
use domain::{EventId, Timestamp};
use futures_util::StreamExt as _;
use store::{Cause, Fault, Progress, Recorded};
use tokio::time::{Instant, interval};

use super::super::Nats;
use super::super::subject::{GROWN, STREAM, ledger};
use super::{Ground, Relay, Trouble, message, stream};
use crate::limit::{
    ANNOUNCED_AGE_MAX, RELAY_CHECK_EVERY, RELAY_NOTE_EVERY, RELAY_PAGE, RELAY_PIPELINE_MAX, RELAY_SCAN_EVERY,
};

/// Everything that is known of the stream, and on its way to it.
pub(super) struct Filling<'a> {
    relay: &'a Relay,
    nats: &'a Nats,
    ground: &'a Ground,
    context: Context,
    stream: Stream,
    hints: Subscriber,
    /// When the stream was made.
    made: Timestamp,
    /// The sequence of the last message, once all that was sent has arrived, and its id where it was sent in
    /// this turn.
    last: u64,
    last_id: Option<String>,
    /// Messages that are on the stream, of all events and of each.
    messages: u64,
    published: HashMap<EventId, u64>,
    on_the_way: VecDeque<Sent>,
    unnoted: HashMap<EventId, u64>,
    noted: Instant,
}

/// A message that was sent and not acknowledged yet.
struct Sent {
    recorded: Recorded,
    sequence: u64,
    acknowledged: PublishAckFuture,
}

impl<'a> Filling<'a> {
    /// Looks at the stream, made where there is none, and at all ledgers.
    pub(super) async fn begin(relay: &'a Relay, nats: &'a Nats, ground: &'a Ground) -> Result<Self, Trouble> {
        if !nats.is_up() {
            return Err(Trouble::Away("no connection".to_owned()));
        }
        let context = stream::context(nats.client().clone());
        let opened = stream::open(&context, true).await?;
        let stream = opened.ok_or_else(|| Trouble::Away("no stream".to_owned()))?;
        let hints = nats.client().subscribe(GROWN).await;
        let hints = hints.map_err(|error| Trouble::Away(error.to_string()))?;
        let found = stream::survey(&stream).await?;
        let mut filling = Self {
            relay,
            nats,
            ground,
            context,
            stream,
            hints,
            made: found.made,
            last: found.last,
            last_id: None,
            messages: found.messages,
            published: found.counts,
            on_the_way: VecDeque::new(),
            unnoted: HashMap::new(),
            noted: Instant::now(),
        };
        filling.compare().await?;
        relay.note(|standing| {
            standing.fills = true;
            standing.trouble = None;
        });
        Ok(filling)
    }

    /// Compares what is on the stream with the ledgers: it must be the beginning of each.
    async fn compare(&mut self) -> Result<(), Trouble> {
        let (mut after, mut known, mut behind) = (None, 0, 0);
        loop {
            let page = self.ground.store.cursors(self.made, Progress::All, after, RELAY_PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.event);
            for cursor in page {
                let on_it = self.published.get(&cursor.event).copied();
                let count = on_it.unwrap_or(0);
                known += usize::from(on_it.is_some());
                behind += cursor.ledger.checked_sub(count).ok_or_else(|| ahead(cursor.event))?;
                // A note that is not true is corrected: what the stream has is what counts.
                if count != cursor.published {
                    if count > 0 {
                        self.check(cursor.event, count).await?;
                    }
                    self.unnoted.insert(cursor.event, count);
                }
            }
        }
        if let Some(stranger) = self.published.keys().next().filter(|_| known < self.published.len()) {
            return Err(ahead(*stranger));
        }
        self.relay.note(|standing| standing.behind = behind);
        Ok(())
    }

    /// Checks that an event's last message is the entry of that number.
    async fn check(&self, event: EventId, seq: u64) -> Result<(), Trouble> {
        let last = self.ground.store.recorded(event, seq - 1, 1).await?.pop();
        match last {
            Some(last) => stream::check_last(&self.stream, &last).await,
            None => Err(ahead(event)),
        }
    }

    /// Fills the stream, and looks after it, until something ends the turn.
    pub(super) async fn go_on(&mut self) -> Trouble {
        let (mut scan, mut check) = (interval(RELAY_SCAN_EVERY), interval(RELAY_CHECK_EVERY));
        loop {
            let step = tokio::select! {
                () = self.relay.wake.notified() => self.catch_up(self.relay.take_grown()).await,
                Some(hint) = self.hints.next() => self.catch_up(events_in(&hint.payload)).await,
                _ = scan.tick() => self.catch_up_with_all().await,
                _ = check.tick() => self.look_after().await,
            };
            if let Err(trouble) = step {
                return trouble;
            }
        }
    }

    /// Puts on the stream what these ledgers have that it has not.
    async fn catch_up(&mut self, events: BTreeSet<EventId>) -> Result<(), Trouble> {
        for event in events {
            self.send_all_of(event).await?;
        }
        self.settle(0).await?;
        self.write_down(false).await
    }

    /// The same for every ledger that is longer than was noted: where a hint was lost, or there was none.
    async fn catch_up_with_all(&mut self) -> Result<(), Trouble> {
        let (mut after, mut behind) = (None, 0);
        self.write_down(true).await?;
        loop {
            let page = self.ground.store.cursors(self.made, Progress::Behind, after, RELAY_PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.event);
            behind += page.iter().map(|cursor| cursor.ledger.saturating_sub(cursor.published)).sum::<u64>();
            self.relay.note(|standing| standing.behind = behind);
            self.catch_up(page.into_iter().map(|cursor| cursor.event).collect()).await?;
        }
        self.write_down(true).await?;
        self.relay.note(|standing| standing.behind = 0);
        Ok(())
    }

    async fn send_all_of(&mut self, event: EventId) -> Result<(), Trouble> {
        loop {
            let after = self.published.get(&event).copied().unwrap_or(0);
            let page = self.ground.store.recorded(event, after, RELAY_PAGE).await?;
            let is_last = page.len() < RELAY_PAGE as usize;
            for recorded in page {
                self.send(recorded).await?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Sends one message, without waiting until it has arrived.
    async fn send(&mut self, recorded: Recorded) -> Result<(), Trouble> {
        self.settle(RELAY_PIPELINE_MAX - 1).await?;
        let (event, seq) = (recorded.entry.event_id, recorded.entry.seq);
        let payload = message::render(&recorded).map_err(|error| Fault::Broken(Cause::new(error)))?;
        let id = message::id(event, seq);
        let guarded = self.guarded(PublishMessage::build().message_id(&id).expected_stream(STREAM));
        let message = guarded.header("Content-Type", "application/cloudevents+json").payload(payload.into());
        let sent = self.context.send_publish(ledger(event), message).await;
        let acknowledged = sent.map_err(|error| away(&error))?;
        self.last += 1;
        self.last_id = Some(id);
        self.published.insert(event, seq);
        self.on_the_way.push_back(Sent { recorded, sequence: self.last, acknowledged });
        Ok(())
    }

    /// Names what must be last on the stream when the message arrives: its number and, where it is known, its
    /// name. The name is what a message that was lost before this one, and replaced by another relay's, has
    /// not.
    fn guarded(&self, message: PublishMessage) -> PublishMessage {
        if is_unguarded() {
            return message;
        }
        let message = message.expected_last_sequence(self.last);
        match &self.last_id {
            Some(id) => message.expected_last_message_id(id),
            None => message,
        }
    }

    /// Waits until at most so many messages are on their way.
    async fn settle(&mut self, most: usize) -> Result<(), Trouble> {
        while self.on_the_way.len() > most {
            let Some(Sent { recorded, sequence, acknowledged }) = self.on_the_way.pop_front() else { break };
            let receipt = acknowledged.into_future().await.map_err(|error| match error.kind() {
                PublishErrorKind::WrongLastSequence | PublishErrorKind::WrongLastMessageId => {
                    Trouble::Changed
                }
                PublishErrorKind::StreamNotFound => Trouble::Changed,
                PublishErrorKind::Other => {
                    Trouble::Operator(format!("NATS refuses messages: {}", whole(&error)))
                }
                _ => away(&error),
            })?;
            // A message that counts as a repetition may be on the stream, or have been purged from it.
            if !is_unguarded() && (receipt.duplicate || receipt.sequence != sequence) {
                return Err(Trouble::Changed);
            }
            self.messages += 1;
            self.arrived(&recorded).await;
        }
        Ok(())
    }

    /// Notes that an entry is on the stream, and announces it to the original service's subscribers.
    async fn arrived(&mut self, recorded: &Recorded) {
        let (now, entry) = (self.ground.clock.now(), &recorded.entry);
        let age = u64::try_from(now.micros().saturating_sub(entry.at.micros())).unwrap_or(0);
        self.unnoted.insert(entry.event_id, entry.seq);
        self.relay.note(|standing| {
            standing.told += 1;
            standing.lag_micros = age;
            standing.behind = standing.behind.saturating_sub(1);
        });
        // Old news on a stream that is filled anew were announced once before, and a mail is not sent twice.
        if u128::from(age) <= ANNOUNCED_AGE_MAX.as_micros()
            && let Some((subject, payload)) = message::announcement(recorded)
        {
            let _ = self.nats.client().publish(subject, payload.into()).await;
        }
    }

    /// Writes down how far it has got: now and then, since only a later turn reads it.
    async fn write_down(&mut self, now: bool) -> Result<(), Trouble> {
        if self.unnoted.is_empty() || !(now || self.noted.elapsed() >= RELAY_NOTE_EVERY) {
            return Ok(());
        }
        let notes: Vec<(EventId, u64)> = self.unnoted.drain().collect();
        for page in notes.chunks(RELAY_PAGE as usize) {
            self.ground.store.advance(self.made, page.to_vec()).await?;
        }
        self.noted = Instant::now();
        Ok(())
    }

    /// Looks whether the stream is still what was put on it.
    async fn look_after(&mut self) -> Result<(), Trouble> {
        self.settle(0).await?;
        let opened = stream::open(&self.context, false).await?;
        let Some(stream) = opened else { return Err(Trouble::Changed) };
        let found = stream::glance(&stream).await?;
        let is_ours = found == (self.made, self.last, self.messages);
        if is_ours || is_unguarded() { Ok(()) } else { Err(Trouble::Changed) }
    }
}

#[cfg(not(feature = "sabotage"))]
fn is_unguarded() -> bool {
    false
}

/// Tests take the guard away, and the trust in the stream above one's own numbers, to show that they notice.
#[cfg(feature = "sabotage")]
fn is_unguarded() -> bool {
    domain::sabotage::removed(domain::sabotage::Guard::StreamSequence)
}

fn ahead(event: EventId) -> Trouble {
    Trouble::Operator(format!(
        "the stream {STREAM} knows more of {event} than the ledger: was the database restored, or is the stream \
         another database's? Nothing is overwritten; delete the stream, and it is filled anew"
    ))
}

fn away(error: &dyn std::fmt::Display) -> Trouble {
    Trouble::Away(error.to_string())
}

/// An error with what lies behind it.
fn whole(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

fn events_in(payload: &[u8]) -> BTreeSet<EventId> {
    let text = std::str::from_utf8(payload).unwrap_or_default();
    text.split(',').filter_map(|id| id.parse().ok()).take(crate::limit::RELAY_GROWN_MAX).collect()
}
