//! One turn at filling the stream.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error as _;
use std::sync::atomic::{AtomicU64, Ordering};

use domain::EventId;
use domain::sabotage::{Guard, removed};
use futures_util::{StreamExt as _, TryStreamExt as _};
use store::{CursorFilter, EntryWithBooking, Fault};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::port::{Glance, Stream, Told, Trouble};
use super::{Ground, Relay};
use crate::Publish as _;
use crate::limit::{
    ANNOUNCED_AGE_MAX, RELAY_CHECK_EVERY, RELAY_EVENTS_MAX, RELAY_NOTE_EVERY, RELAY_PAGE, RELAY_READS_MAX,
    RELAY_SCAN_EVERY,
};

/// Everything that is known of the stream in one turn.
pub(super) struct Filling<'a> {
    relay: &'a Relay,
    ground: &'a Ground,
    stream: Box<dyn Stream>,
    /// What the stream said of itself when the turn began.
    begun: Glance,
    /// Messages that this turn has appended.
    appended: AtomicU64,
    tails: HashMap<EventId, Tail>,
    unnoted: BTreeMap<EventId, u64>,
    noted: Instant,
    /// Events whose entries cannot be read.
    stuck: BTreeSet<EventId>,
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
struct Extended {
    event: EventId,
    tail: Tail,
    /// Why the entries after the tail cannot be read.
    unreadable: Option<Fault>,
}

impl<'a> Filling<'a> {
    /// Looks at the stream, made where there is none, and at all ledgers.
    pub(super) async fn begin(relay: &'a Relay, ground: &'a Ground) -> Result<Self, Trouble> {
        // Sequences of one stream are never those of another of its name: it starts at the microsecond of its
        // creation, and no server stores a million messages per second. So a delayed message for a stream that was
        // deleted is refused by the next one.
        let first = u64::try_from(ground.clock.now().micros()).unwrap_or(1);
        let stream = ground.bell.open(first).await?;
        let found = stream.survey().await?;
        let mut filling = Self {
            relay,
            ground,
            stream,
            begun: found.glance,
            appended: AtomicU64::new(0),
            tails: HashMap::new(),
            unnoted: BTreeMap::new(),
            noted: Instant::now(),
            stuck: BTreeSet::new(),
            reads: Semaphore::new(RELAY_READS_MAX),
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
                self.ground.store.cursors(self.begun.made, CursorFilter::All, after, RELAY_PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.event);
            for cursor in page {
                let mut count = counts.remove(&cursor.event).unwrap_or(0);
                if removed(Guard::StreamCounted) {
                    count = cursor.published;
                }
                behind += cursor.ledger.checked_sub(count).ok_or_else(|| ahead(cursor.event))?;
                let mut tail = Tail::of(count);
                // A note that is not true is corrected: what the stream has is what counts.
                if count != cursor.published {
                    tail.sequence = Some(self.sequence_of(cursor.event, tail).await?);
                    self.unnoted.insert(cursor.event, count);
                }
                self.tails.insert(cursor.event, tail);
            }
        }
        if let Some(stranger) = counts.into_keys().min() {
            return Err(ahead(stranger));
        }
        self.relay.note(|standing| standing.behind = behind);
        Ok(())
    }

    /// The sequence of an event's last message, which must be the entry of that number: so all before it are there,
    /// and the stream tells of the same ledger.
    async fn sequence_of(&self, event: EventId, tail: Tail) -> Result<u64, Trouble> {
        if let Some(sequence) = tail.sequence {
            return Ok(sequence);
        }
        let Some((sequence, told)) = self.stream.last_of(event).await? else {
            return Err(Trouble::Changed(format!("messages of {event} are gone")));
        };
        if is_unguarded() || removed(Guard::StreamPredecessor) {
            return Ok(sequence);
        }
        let Some(last) = self.recorded(event, tail.seq - 1, 1).await?.pop() else {
            return Err(ahead(event));
        };
        if told == Told::from(&last.entry) {
            return Ok(sequence);
        }
        // Another relay may have gone on since the survey.
        let expected = self.begun.after(self.appended.load(Ordering::Relaxed));
        if self.stream.glance().await? != Some(expected) {
            return Err(Trouble::Changed(format!("another message of {event} is the last one")));
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

    /// Puts on the stream what these ledgers have that it has not, up to a page of each. One that cannot be read
    /// keeps no other waiting.
    async fn catch_up(&mut self, events: BTreeSet<EventId>) -> Result<(), Trouble> {
        let extended = futures_util::stream::iter(events)
            .map(|event| self.extend(event))
            .buffer_unordered(RELAY_EVENTS_MAX)
            .try_collect::<Vec<Extended>>()
            .await?;
        for Extended { event, tail, unreadable } in extended {
            if self.tails.insert(event, tail).unwrap_or(Tail::EMPTY).seq < tail.seq {
                self.unnoted.insert(event, tail.seq);
            }
            match unreadable {
                None => _ = self.stuck.remove(&event),
                Some(fault) if self.stuck.insert(event) => {
                    let cause = fault.source().map(ToString::to_string);
                    tracing::error!(%event, %fault, cause, "an event's entries cannot be told; others are");
                }
                Some(_) => {}
            }
        }
        self.write_down(false).await
    }

    /// The same for every ledger that is longer than was noted: where a hint was lost, or there was none.
    async fn catch_up_with_all(&mut self) -> Result<(), Trouble> {
        let (mut after, mut waiting) = (None, 0);
        self.write_down(true).await?;
        loop {
            let page =
                self.ground.store.cursors(self.begun.made, CursorFilter::Behind, after, RELAY_PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.event);
            let behind: u64 = page.iter().map(|cursor| cursor.ledger.saturating_sub(cursor.published)).sum();
            self.relay.note(|standing| standing.behind = waiting + behind);
            self.catch_up(page.iter().map(|cursor| cursor.event).collect()).await?;
            for cursor in page {
                let tail = self.tails.get(&cursor.event).map_or(0, |tail| tail.seq);
                waiting += cursor.ledger.saturating_sub(tail);
            }
        }
        self.write_down(true).await?;
        let trouble = self.stuck.first().map(|event| {
            format!(
                "entries of {event} cannot be read, and are not told; `boxoffice audit` says what is wrong"
            )
        });
        self.relay.note(|standing| (standing.behind, standing.trouble) = (waiting, trouble));
        self.relay.sample(waiting);
        Ok(())
    }

    /// Appends up to a page of an event's entries.
    async fn extend(&self, event: EventId) -> Result<Extended, Trouble> {
        let mut tail = self.tails.get(&event).copied().unwrap_or(Tail::EMPTY);
        let unreadable = match self.append_page(event, &mut tail).await {
            Ok(()) => None,
            Err(Trouble::Store(fault @ Fault::Broken(_))) => Some(fault),
            Err(trouble) => return Err(trouble),
        };
        Ok(Extended { event, tail, unreadable })
    }

    /// As [`store::Store::recorded`], with few reads at once: however many events are behind, others read, too.
    async fn recorded(&self, event: EventId, after: u64, limit: u32) -> Result<Vec<EntryWithBooking>, Fault> {
        let _permit = self.reads.acquire().await;
        self.ground.store.entries_with_bookings(event, after, limit).await
    }

    /// One message of an event after the other: each is sent once the stream has acknowledged the one before.
    async fn append_page(&self, event: EventId, tail: &mut Tail) -> Result<(), Trouble> {
        let page = self.recorded(event, tail.seq, RELAY_PAGE).await?;
        if page.is_empty() {
            return Ok(());
        }
        let is_full = page.len() == RELAY_PAGE as usize;
        let mut after = self.sequence_of(event, *tail).await?;
        for recorded in page {
            let stored = self.stream.append(&recorded, (!is_unguarded()).then_some(after)).await?;
            // A message that counts as a repetition may be on the stream, or have been purged from it.
            if stored.duplicate && !is_unguarded() {
                return Err(Trouble::Changed(format!("a message of {event} is there already")));
            }
            after = stored.sequence;
            *tail = Tail { seq: recorded.entry.seq, sequence: Some(after) };
            self.arrived(&recorded).await;
        }
        if is_full {
            self.relay.grown(&[event]);
        }
        Ok(())
    }

    /// Notes that an entry is on the stream, and announces it to those who do not read that.
    async fn arrived(&self, recorded: &EntryWithBooking) {
        let (now, entry) = (self.ground.clock.now(), &recorded.entry);
        let age = u64::try_from(now.micros().saturating_sub(entry.at.micros())).unwrap_or(0);
        self.appended.fetch_add(1, Ordering::Relaxed);
        self.relay.note(|standing| {
            standing.told += 1;
            standing.lag_micros = age;
            standing.behind = standing.behind.saturating_sub(1);
        });
        self.relay.published();
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
            self.ground.store.save_relay_cursors(self.begun.made, page.to_vec()).await?;
        }
        self.noted = Instant::now();
        Ok(())
    }

    /// Looks whether the stream still has what was put on it. Other relays may have appended.
    async fn look_after(&self) -> Result<(), Trouble> {
        if is_unguarded() || removed(Guard::StreamVerified) {
            return Ok(());
        }
        let last = self.tails.values().filter_map(|tail| tail.sequence).max().unwrap_or(0);
        match self.stream.glance().await? {
            None => Err(Trouble::Changed("it is gone".to_owned())),
            Some(now) if now.made != self.begun.made => Err(Trouble::Changed("it is another one".to_owned())),
            Some(now) if now.lacks() != self.begun.lacks() || now.last < last.max(self.begun.last) => {
                Err(Trouble::Changed("it has lost messages".to_owned()))
            }
            Some(_) => Ok(()),
        }
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
