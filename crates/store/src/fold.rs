//! The fold: commands in, one after the other, changes out. The same for every database.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::sync::Arc;

use domain::sabotage::{Guard, removed};
use domain::{
    Action, Actor, Answer, Booking, BookingId, Change, Command, Decision, Entry, Event, EventId, HoldScope,
    Refund, RefundId, RefundStatus, Shortage, Snapshot, Timestamp, TransactionId, UserId, decide,
};

use crate::{Cause, Fault, Reply, Submission};

/// Most commands of one batch: bounds how long a transaction holds its rows (some milliseconds).
pub const BATCH_MAX: usize = 1_024;
/// Most overdue holds that one batch frees for the sake of its orders; the rest is carried over.
pub const OVERDUE_PER_BATCH_MAX: usize = 1_024;
/// How long an answer is kept under its key, in seconds: a day.
pub const IDEMPOTENCY_TTL_SECONDS: u32 = 24 * 60 * 60;
/// Overdue holds fetched at a time.
const OVERDUE_PAGE: u32 = 64;
/// Most pages of one event's overdue holds that a batch looks at: enough for all that it may free, and for three times
/// as many that cannot be read or freed. With more of those the event is at fault, and no order waits for them all.
const OVERDUE_PAGES_MAX: u32 = 64;

/// A row, or why it cannot be read. Only the commands that need it fail.
pub(crate) type RowResult<T> = Result<T, Cause>;

/// What a transaction offers the fold. Everything it shows is locked until the transaction ends.
pub(crate) trait Tx: Send {
    /// Locks and loads what the commands concern, set by set.
    fn load(&mut self, batch: &[Submission]) -> impl Future<Output = Result<Loaded, Fault>> + Send;

    /// The database's clock, read after the locking load.
    fn now(&mut self) -> impl Future<Output = Result<Timestamp, Fault>> + Send;

    /// A page of the overdue holds of an event within a scope, oldest first.
    fn overdue(
        &mut self,
        wanted: &OverdueQuery<'_>,
    ) -> impl Future<Output = Result<OverdueHoldPage, Fault>> + Send;

    /// Writes everything under its guards and commits. A guard that misses fails the transaction.
    fn commit(self, changes: Changes) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Ends a transaction without changes, once what it has shown is as durable as what is committed.
    fn confirm(self) -> impl Future<Output = Result<(), Fault>> + Send
    where
        Self: Sized,
    {
        std::future::ready(Ok(()))
    }
}

/// Which overdue holds are wanted.
pub(crate) struct OverdueQuery<'a> {
    pub(crate) event: EventId,
    pub(crate) scope: &'a HoldScope,
    pub(crate) now: Timestamp,
    /// The deadline, in microseconds, and the id of the last hold of the page before.
    pub(crate) after: Option<(i64, BookingId)>,
    pub(crate) limit: u32,
}

/// Overdue holds in the order of their deadline and id. Those that cannot be read are left out: a bad row
/// must not stop the rest.
pub(crate) struct OverdueHoldPage {
    pub(crate) holds: Vec<Hold>,
    /// Where the next page begins; unset on the last one.
    pub(crate) next: Option<(i64, BookingId)>,
}

/// An overdue hold, and how many tickets its user holds in all (0 where that is not counted).
pub(crate) struct Hold {
    pub(crate) booking: Booking,
    pub(crate) user_tickets: u32,
}

/// What is stored, as far as a batch concerns it; brought up to date as the fold goes on.
#[derive(Default)]
pub(crate) struct Loaded {
    pub(crate) events: BTreeMap<EventId, RowResult<Event>>,
    pub(crate) bookings: BTreeMap<BookingId, RowResult<Arc<Booking>>>,
    pub(crate) refunds: BTreeMap<(BookingId, TransactionId), RowResult<Refund>>,
    pub(crate) user_tickets: BTreeMap<(EventId, UserId), u32>,
    /// Answers kept under the batch's keys, by scope and key; none that is older than a day.
    pub(crate) keys: BTreeMap<(String, String), Kept>,
    /// Events that somebody else has locked: nothing is decided by what was loaded of them.
    pub(crate) busy: BTreeSet<EventId>,
}

/// An answer kept under a key.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) fingerprint: [u8; 32],
    pub(crate) answer: Arc<[u8]>,
}

/// An answer to be kept, and since when.
pub(crate) struct NewStoredResponse {
    pub(crate) kept: Kept,
    pub(crate) at: Timestamp,
}

/// What a batch changes, each row once, in the order in which rows are locked.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) events: BTreeMap<EventId, EventChange>,
    pub(crate) bookings: BTreeMap<BookingId, BookingChange>,
    pub(crate) user_tickets: BTreeMap<(EventId, UserId), u32>,
    pub(crate) refunds: BTreeMap<RefundId, RefundChange>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) keys: BTreeMap<(String, String), NewStoredResponse>,
}

/// An event as it will be.
pub(crate) struct EventChange {
    pub(crate) event: Event,
    /// The ledger number that was loaded, which must still stand; `None` for a new event.
    pub(crate) loaded_seq: Option<u64>,
    pub(crate) described: bool,
}

/// A booking as it will be.
pub(crate) struct BookingChange {
    pub(crate) booking: Arc<Booking>,
    /// The version that was loaded, which must still stand; `None` for a new booking.
    pub(crate) loaded_version: Option<u32>,
}

/// A refund as it will be.
pub(crate) struct RefundChange {
    pub(crate) refund: Refund,
    /// The status that was loaded, which must still stand; `None` for a new refund.
    pub(crate) loaded_status: Option<RefundStatus>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.keys.is_empty()
    }
}

/// Decides every command in turn. Returns one reply each, to be given once the changes are durable.
pub(crate) async fn fold<T: Tx>(tx: &mut T, batch: &[Submission]) -> Result<(Vec<Reply>, Changes), Fault> {
    let loaded = tx.load(batch).await?;
    let now = tx.now().await?;
    let mut fold =
        Fold { tx, loaded, now, changes: Changes::default(), overdue_cursors: Vec::new(), freed: 0 };
    let mut replies = Vec::with_capacity(batch.len());
    for submission in batch {
        replies.push(fold.submission(submission).await?);
    }
    let Changes { events, user_tickets, .. } = &mut fold.changes;
    // Where the limit was lifted by the batch that still counted, nobody is counted any more.
    user_tickets.retain(|(event, _), _| {
        events.get(event).is_some_and(|change| change.event.details.max_tickets_per_user.is_some())
    });
    Ok((replies, fold.changes))
}

struct Fold<'t, T> {
    tx: &'t mut T,
    loaded: Loaded,
    now: Timestamp,
    changes: Changes,
    overdue_cursors: Vec<OverdueCursor>,
    freed: usize,
}

/// The overdue holds of one event and scope, fetched page by page, each once.
struct OverdueCursor {
    event: EventId,
    scope: HoldScope,
    queue: VecDeque<BookingId>,
    after: Option<(i64, BookingId)>,
    pages: u32,
    exhausted: bool,
}

impl<T: Tx> Fold<'_, T> {
    /// One submission: what is kept under its key, or else a decision, which is then kept.
    async fn submission(&mut self, submission: &Submission) -> Result<Reply, Fault> {
        let is_busy = self.loaded.busy.contains(&submission.command.event_id());
        let Some(keep) = submission.idempotency.as_ref() else {
            return if is_busy { Ok(Reply::Busy) } else { self.command(&submission.command).await };
        };
        let key = (keep.scope.clone(), keep.key.clone());
        match self.loaded.keys.get(&key) {
            Some(_) if removed(Guard::KeyReplayed) => {}
            Some(kept) if kept.fingerprint == keep.fingerprint || removed(Guard::KeyCompared) => {
                return Ok(Reply::Stored { answer: kept.answer.clone(), replayed: true });
            }
            Some(_) => return Ok(Reply::KeyReused),
            None => {}
        }
        if is_busy {
            return Ok(Reply::Busy);
        }
        let reply = self.command(&submission.command).await?;
        let Reply::Answered(answer) = &reply else { return Ok(reply) };
        let Some(rendered) = (keep.serialize_response)(answer, self.now) else { return Ok(reply) };
        let kept = Kept { fingerprint: keep.fingerprint, answer: rendered.into() };
        self.loaded.keys.insert(key.clone(), kept.clone());
        self.changes.keys.insert(key, NewStoredResponse { kept: kept.clone(), at: self.now });
        Ok(Reply::Stored { answer: kept.answer, replayed: false })
    }

    async fn command(&mut self, command: &Command) -> Result<Reply, Fault> {
        let mut swept = Vec::new();
        loop {
            let verdict = match self.decide(command, &swept) {
                Ok(verdict) => verdict,
                Err(cause) => return Ok(Reply::Failed(Fault::Broken(cause))),
            };
            match verdict {
                Decision::Answer(answer) => return Ok(Reply::Answered(answer)),
                Decision::Change(change) => {
                    return Ok(Reply::Answered(self.apply(command.event_id(), *change)));
                }
                Decision::Overdue(_) if self.freed >= OVERDUE_PER_BATCH_MAX => return Ok(Reply::Requeue),
                Decision::Overdue(shortage) => {
                    if !self.free_overdue(command, &shortage).await? {
                        swept.push(shortage.scope);
                    }
                }
            }
        }
    }

    fn decide(&self, command: &Command, exhausted_scopes: &[HoldScope]) -> Result<Decision, Cause> {
        let event = command.event_id();
        let booking = command.booking_id().and_then(|id| self.loaded.bookings.get(&id));
        let booking = booking.map(Result::as_ref).transpose().map_err(Clone::clone)?;
        // A booking of another event is none of this one's. To an order its id is taken all the same.
        let booking = booking.filter(|booking| booking.event_id == event || command.booked_user().is_some());
        let refund = match command.captured() {
            Some(payment) => self.loaded.refunds.get(&payment).map(Result::as_ref).transpose(),
            None => Ok(None),
        };
        let refund = refund.map_err(Clone::clone)?;
        let user = command.booked_user().or_else(|| booking.map(|booking| &booking.user));
        let counted = |user: &UserId| self.loaded.user_tickets.get(&(event, user.clone())).copied();
        let event = self.loaded.events.get(&event).map(Result::as_ref).transpose().map_err(Clone::clone)?;
        let limited = event.is_some_and(|event| event.details.max_tickets_per_user.is_some());
        let user_tickets = user.filter(|_| limited).and_then(counted).unwrap_or(0);
        let snapshot = Snapshot { event, booking, refund, user_tickets, exhausted_scopes };
        decide(&snapshot, command, self.now).map_err(Cause::new)
    }

    /// Takes a change over: into what later commands see, and into what will be written.
    fn apply(&mut self, event_id: EventId, change: Change) -> Answer {
        let Change { details, inventory, booking, refund, user_tickets, entries, answer } = change;
        let known = self.loaded.events.get(&event_id).and_then(|event| event.as_ref().ok());
        let loaded_seq = known.map(|event| event.inventory.seq);
        let described = details.is_some();
        let details = details.or_else(|| known.map(|event| event.details.clone()));
        if let Some(details) = details {
            let event = Event { id: event_id, details, inventory };
            let change = self.changes.events.entry(event_id).or_insert_with(|| EventChange {
                event: event.clone(),
                loaded_seq,
                described: false,
            });
            change.event = event.clone();
            change.described |= described;
            self.loaded.events.insert(event_id, Ok(event));
        }
        if let Some(booking) = booking {
            let known = self.loaded.bookings.insert(booking.id, Ok(booking.clone()));
            let loaded_version = known.and_then(Result::ok).map(|before| before.version);
            self.changes
                .bookings
                .entry(booking.id)
                .and_modify(|change| change.booking = booking.clone())
                .or_insert(BookingChange { booking, loaded_version });
        }
        if let Some(refund) = refund {
            let key = (refund.booking_id, refund.transaction.clone());
            let known = self.loaded.refunds.insert(key, Ok(refund.clone()));
            let loaded_status = known.and_then(Result::ok).map(|before| before.status);
            self.changes
                .refunds
                .entry(refund.id)
                .and_modify(|change| change.refund = refund.clone())
                .or_insert(RefundChange { refund, loaded_status });
        }
        if let Some((user, tickets)) = user_tickets {
            self.loaded.user_tickets.insert((event_id, user.clone()), tickets);
            self.changes.user_tickets.insert((event_id, user), tickets);
        }
        self.changes.entries.extend(entries);
        answer
    }

    /// Frees overdue holds until the shortage is made up, the batch has freed its share, or none is left;
    /// says whether any was freed.
    async fn free_overdue(&mut self, command: &Command, shortage: &Shortage) -> Result<bool, Fault> {
        let event_id = command.event_id();
        let mut missing = shortage.tickets;
        let mut any = false;
        while missing > 0 && self.freed < OVERDUE_PER_BATCH_MAX {
            let Some(booking) = self.next_overdue(event_id, &shortage.scope).await? else { break };
            let expire = Command {
                actor: Actor::System,
                request: command.request.clone(),
                trace: command.trace.clone(),
                action: Action::Expire { event_id, booking_id: booking.id },
            };
            // A hold that cannot be freed stands in nobody's way but its own: the next one is tried.
            if let Ok(Decision::Change(change)) = self.decide(&expire, &[]) {
                self.apply(event_id, *change);
                self.freed += 1;
                any = true;
                missing = missing.saturating_sub(booking.items.quantity());
            }
        }
        Ok(any)
    }

    /// The next hold of a scope that is overdue and has not been touched by this batch.
    async fn next_overdue(
        &mut self,
        event: EventId,
        scope: &HoldScope,
    ) -> Result<Option<Arc<Booking>>, Fault> {
        let known = self.overdue_cursors.iter().position(|pool| pool.event == event && pool.scope == *scope);
        let index = known.unwrap_or_else(|| {
            let (queue, scope) = (VecDeque::new(), scope.clone());
            self.overdue_cursors.push(OverdueCursor {
                event,
                scope,
                queue,
                after: None,
                pages: 0,
                exhausted: false,
            });
            self.overdue_cursors.len() - 1
        });
        let now = self.now;
        loop {
            let pool = &mut self.overdue_cursors[index];
            while let Some(id) = pool.queue.pop_front() {
                if let Some(Ok(booking)) = self.loaded.bookings.get(&id)
                    && booking.overdue(now)
                {
                    return Ok(Some(booking.clone()));
                }
            }
            if pool.exhausted {
                return Ok(None);
            }
            let wanted =
                OverdueQuery { event, scope: &pool.scope, now, after: pool.after, limit: OVERDUE_PAGE };
            let page = self.tx.overdue(&wanted).await?;
            pool.pages += 1;
            pool.exhausted = page.next.is_none() || pool.pages == OVERDUE_PAGES_MAX;
            pool.after = page.next;
            for hold in page.holds {
                pool.queue.push_back(hold.booking.id);
                let key = (event, hold.booking.user.clone());
                self.loaded.user_tickets.entry(key).or_insert(hold.user_tickets);
                self.loaded.bookings.entry(hold.booking.id).or_insert_with(|| Ok(Arc::new(hold.booking)));
            }
        }
    }
}
