//! One turn at filling the stream.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::error::Error as _;

use domain::EventId;
use domain::sabotage::{Guard, removed};
use store::{Fault, Progress, Recorded};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::port::{Glance, Last, Receipt, Stream, Told, Trouble};
use super::{Ground, Relay};
use crate::limit::{
    ANNOUNCED_AGE_MAX, RELAY_CHECK_EVERY, RELAY_NOTE_EVERY, RELAY_PAGE, RELAY_PIPELINE_MAX, RELAY_SCAN_EVERY,
};

/// Everything that is known of the stream, and on its way to it.
pub(super) struct Filling<'a> {
    relay: &'a Relay,
    ground: &'a Ground,
    stream: Box<dyn Stream>,
    /// What the stream says of itself once all that was sent has arrived.
    expected: Glance,
    /// Its last message, where that was sent in this turn.
    last: Option<(EventId, u64)>,
    /// Messages of each event, once all that was sent has arrived.
    published: HashMap<EventId, u64>,
    on_the_way: VecDeque<Sent>,
    unnoted: BTreeMap<EventId, u64>,
    noted: Instant,
    /// Events whose entries cannot be read.
    stuck: BTreeSet<EventId>,
}

/// A message that was sent and not acknowledged yet.
struct Sent {
    recorded: Recorded,
    sequence: u64,
    receipt: Receipt,
}

impl<'a> Filling<'a> {
    /// Looks at the stream, made where there is none, and at all ledgers.
    pub(super) async fn begin(relay: &'a Relay, ground: &'a Ground) -> Result<Self, Trouble> {
        let stream = ground.bell.open().await?;
        let found = stream.survey().await?;
        let mut filling = Self {
            relay,
            ground,
            stream,
            expected: found.glance,
            last: None,
            published: HashMap::new(),
            on_the_way: VecDeque::new(),
            unnoted: BTreeMap::new(),
            noted: Instant::now(),
            stuck: BTreeSet::new(),
        };
        filling.compare(found.counts).await?;
        relay.note(|standing| {
            standing.fills = true;
            standing.trouble = None;
        });
        Ok(filling)
    }

    /// Compares what is on the stream with the ledgers: it must be the beginning of each.
    async fn compare(&mut self, mut counts: HashMap<EventId, u64>) -> Result<(), Trouble> {
        let (mut after, mut behind) = (None, 0);
        loop {
            let page =
                self.ground.store.cursors(self.expected.made, Progress::All, after, RELAY_PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.event);
            for cursor in page {
                let mut count = counts.remove(&cursor.event).unwrap_or(0);
                if removed(Guard::StreamSurveyed) {
                    count = cursor.published;
                }
                behind += cursor.ledger.checked_sub(count).ok_or_else(|| ahead(cursor.event))?;
                self.published.insert(cursor.event, count);
                // A note that is not true is corrected: what the stream has is what counts.
                if count != cursor.published {
                    if count > 0 {
                        self.check(cursor.event, count).await?;
                    }
                    self.unnoted.insert(cursor.event, count);
                }
            }
        }
        if let Some(stranger) = counts.into_keys().min() {
            return Err(ahead(stranger));
        }
        self.relay.note(|standing| standing.behind = behind);
        Ok(())
    }

    /// Checks that an event's last message is the entry of that number: that all before it are there, and that
    /// the stream tells of the same ledger.
    async fn check(&mut self, event: EventId, seq: u64) -> Result<(), Trouble> {
        let Some(last) = self.ground.store.recorded(event, seq - 1, 1).await?.pop() else {
            return Err(ahead(event));
        };
        if self.stream.last_of(event).await?.is_some_and(|told| told == Told::from(&last.entry)) {
            return Ok(());
        }
        Err(Trouble::Operator(format!(
            "what the stream tells of {event} is not the ledger of this database, or has gaps; if the database was \
             restored, delete the stream, and it is filled anew"
        )))
    }

    /// Fills the stream, and looks after it, until something ends the turn.
    pub(super) async fn go_on(&mut self) -> Trouble {
        let (mut check, mut scan) = (every(RELAY_CHECK_EVERY), every(RELAY_SCAN_EVERY));
        loop {
            // In this order: what comes by the clock leaves room for the rest, and a hint takes along what has
            // grown here.
            let step = tokio::select! {
                biased;
                _ = check.tick() => self.look_after().await,
                _ = scan.tick() => self.catch_up_with_all().await,
                mut grown = self.stream.hinted() => {
                    grown.append(&mut self.relay.take_grown());
                    self.catch_up(grown).await
                }
                () = self.relay.wake.notified() => self.catch_up(self.relay.take_grown()).await,
            };
            if let Err(trouble) = step {
                return trouble;
            }
        }
    }

    /// Puts on the stream what these ledgers have that it has not. One that cannot be read keeps no other waiting.
    async fn catch_up(&mut self, events: BTreeSet<EventId>) -> Result<(), Trouble> {
        for event in events {
            match self.send_all_of(event).await {
                Ok(()) => _ = self.stuck.remove(&event),
                Err(Trouble::Store(fault @ Fault::Broken(_))) => {
                    if self.stuck.insert(event) {
                        let cause = fault.source().map(ToString::to_string);
                        tracing::error!(%event, %fault, cause, "an event's entries cannot be told; others are");
                    }
                }
                Err(trouble) => return Err(trouble),
            }
        }
        self.settle(0).await?;
        self.write_down(false).await
    }

    /// The same for every ledger that is longer than was noted: where a hint was lost, or there was none.
    async fn catch_up_with_all(&mut self) -> Result<(), Trouble> {
        let (mut after, mut waiting) = (None, 0);
        self.write_down(true).await?;
        loop {
            let page =
                self.ground.store.cursors(self.expected.made, Progress::Behind, after, RELAY_PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.event);
            let behind: u64 = page.iter().map(|cursor| cursor.ledger.saturating_sub(cursor.published)).sum();
            self.relay.note(|standing| standing.behind = waiting + behind);
            self.catch_up(page.iter().map(|cursor| cursor.event).collect()).await?;
            for cursor in page.iter().filter(|cursor| self.stuck.contains(&cursor.event)) {
                waiting += cursor.ledger - self.published.get(&cursor.event).unwrap_or(&0);
            }
        }
        self.write_down(true).await?;
        let trouble = self.stuck.first().map(|event| {
            format!(
                "entries of {event} cannot be read, and are not told; `boxoffice audit` says what is wrong"
            )
        });
        self.relay.note(|standing| (standing.behind, standing.trouble) = (waiting, trouble));
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
        let receipt = self.stream.append(&recorded, self.guard()).await?;
        self.expected.last += 1;
        self.expected.messages += 1;
        self.last = Some((event, seq));
        self.published.insert(event, seq);
        self.on_the_way.push_back(Sent { recorded, sequence: self.expected.last, receipt });
        Ok(())
    }

    /// What must be last on the stream when the next message arrives: a sequence and, where it is known, an
    /// entry. The entry is what a message that was lost before this one, and replaced by another relay's, is
    /// not.
    fn guard(&self) -> Option<Last> {
        let entry = self.last.filter(|_| !removed(Guard::StreamPredecessor));
        (!is_unguarded()).then_some(Last { sequence: self.expected.last, entry })
    }

    /// Waits until at most so many messages are on their way.
    async fn settle(&mut self, most: usize) -> Result<(), Trouble> {
        while self.on_the_way.len() > most {
            let Some(Sent { recorded, sequence, receipt }) = self.on_the_way.pop_front() else { break };
            let stored = receipt.await?;
            // A message that counts as a repetition may be on the stream, or have been purged from it.
            if !is_unguarded() && (stored.duplicate || stored.sequence != sequence) {
                return Err(Trouble::Changed);
            }
            self.arrived(&recorded).await;
        }
        Ok(())
    }

    /// Notes that an entry is on the stream, and announces it to those who do not read that.
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
        if u128::from(age) <= ANNOUNCED_AGE_MAX.as_micros() {
            self.ground.bell.announce(recorded).await;
        }
    }

    /// Writes down how far it has got: now and then, since only a later turn reads it.
    async fn write_down(&mut self, now: bool) -> Result<(), Trouble> {
        if self.unnoted.is_empty() || !(now || self.noted.elapsed() >= RELAY_NOTE_EVERY) {
            return Ok(());
        }
        let notes: Vec<(EventId, u64)> = std::mem::take(&mut self.unnoted).into_iter().collect();
        for page in notes.chunks(RELAY_PAGE as usize) {
            self.ground.store.advance(self.expected.made, page.to_vec()).await?;
        }
        self.noted = Instant::now();
        Ok(())
    }

    /// Looks whether the stream is still what was put on it.
    async fn look_after(&mut self) -> Result<(), Trouble> {
        self.settle(0).await?;
        let is_ours = self.stream.glance().await? == Some(self.expected);
        let is_trusted = is_unguarded() || removed(Guard::StreamLookedAfter);
        if is_ours || is_trusted { Ok(()) } else { Err(Trouble::Changed) }
    }
}

/// Ticks at once, and then so often; late ticks are not made up for.
fn every(period: std::time::Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Tests take the guard away, and the trust in the stream above one's own numbers, to show that they notice.
fn is_unguarded() -> bool {
    removed(Guard::StreamSequence)
}

fn ahead(event: EventId) -> Trouble {
    Trouble::Operator(format!(
        "the stream knows more of {event} than the ledger: was the database restored, or is the stream another \
         database's? Nothing is overwritten; delete the stream, and it is filled anew"
    ))
}
