//! The fold: decides the commands of a batch one after the other and collects their changes. It is the same
//! for every database.
//!
//! [`fold()`] runs inside a transaction. It first loads the rows that the commands need; [`Tx::load`] locks
//! the rows of their events (on SQLite, the write transaction is the lock), so no other transaction can
//! change anything of these events until this one ends. Then it calls [`domain::decide()`] for each command
//! and applies each change to the loaded rows, so that the next command sees it. All changes are written
//! together by [`Tx::commit`].
//!
//! "Sold out" is decided by [`domain::decide()`] alone, on the counters loaded under the row lock. If tickets
//! are missing while overdue holds may still occupy some, `decide` returns [`Decision::FreeOverdue`] instead
//! of a refusal. The fold then frees overdue holds, oldest first, each by a decision of its own
//! ([`Action::Expire`]), and calls `decide` again until the order succeeds or no overdue hold is left that
//! could help.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::sync::Arc;

use domain::{
    Action, Actor, Answer, Booking, BookingId, Change, Command, Decision, Entry, Event, EventId, ExternalRef,
    HoldScope, Refund, RefundId, RefundStatus, Shortage, Snapshot, Timestamp, TransactionId, TypeInventory,
    UserId, decide, guard,
};

use crate::cell::Cell;
use crate::fault::RowResult;
use crate::json::hex;
use crate::limit::{OVERDUE_PAGE, OVERDUE_PAGES_MAX, OVERDUE_PER_BATCH_MAX, USER_WINDOW};
use crate::sql::Sql;
use crate::{Cause, CommandOutput, Fault, Reply, Submission};

/// The operations of a write transaction that the fold needs. All rows that it returns are locked until the
/// transaction ends.
pub(crate) trait Tx: Send {
    /// Locks and loads the rows that the commands need, table by table.
    fn load(&mut self, batch: &[Submission]) -> impl Future<Output = Result<LoadedRows, Fault>> + Send;

    /// The database's clock, read after the locking load.
    fn now(&mut self) -> impl Future<Output = Result<Timestamp, Fault>> + Send;

    /// A page of the overdue holds of an event within a scope, oldest first.
    fn overdue(
        &mut self,
        query: &OverdueQuery<'_>,
    ) -> impl Future<Output = Result<OverdueHoldPage, Fault>> + Send;

    /// Writes all changes, each conditional on the loaded row (its guard), and commits. A guard that misses
    /// fails the transaction.
    fn commit(self, changes: Changes) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Ends a transaction without changes, once everything that it has read is as durable as an acknowledged
    /// commit.
    fn await_replication(self) -> impl Future<Output = Result<(), Fault>> + Send
    where
        Self: Sized,
    {
        std::future::ready(Ok(()))
    }
}

/// A query for a page of overdue holds.
pub(crate) struct OverdueQuery<'a> {
    pub(crate) event: EventId,
    pub(crate) scope: &'a HoldScope,
    pub(crate) now: Timestamp,
    /// The deadline, in microseconds, and the id of the last hold of the previous page.
    pub(crate) after: Option<(i64, BookingId)>,
    pub(crate) limit: u32,
}

impl OverdueQuery<'_> {
    /// The statement and its parameters. The holds of a user are few: they are read in one page.
    pub(crate) fn statement(&self) -> (Sql, Vec<Cell<'_>>) {
        let event_and_time = [Cell::Id(*self.event.bytes()), self.now.micros().into()];
        let ticket_type = match self.scope {
            HoldScope::Event => None,
            HoldScope::TicketType(id) => Some(hex(*id)),
            HoldScope::User(user) => {
                let user = [user.as_str().into(), USER_WINDOW.into()];
                return (Sql::BookingOverdueOfUser, event_and_time.into_iter().chain(user).collect());
            }
        };
        let (after_time, after_id) = self.after.map_or((i64::MIN, [0; 16]), |(at, id)| (at, *id.bytes()));
        let page = [after_time.into(), Cell::Id(after_id), ticket_type.into(), self.limit.into()];
        (Sql::BookingOverdue, event_and_time.into_iter().chain(page).collect())
    }

    fn is_paged(&self) -> bool {
        !matches!(self.scope, HoldScope::User(_))
    }
}

/// Overdue holds in the order of their deadlines and ids. Rows that cannot be decoded are left out: they must
/// not block the others.
pub(crate) struct OverdueHoldPage {
    pub(crate) holds: Vec<OverdueHold>,
    /// The start of the next page; `None` on the last page.
    pub(crate) next: Option<(i64, BookingId)>,
}

impl OverdueHoldPage {
    /// A page from its rows, each with its deadline and its id.
    pub(crate) fn from_rows(
        mut rows: Vec<((i64, BookingId), RowResult<OverdueHold>)>,
        query: &OverdueQuery<'_>,
    ) -> Self {
        rows.sort_unstable_by_key(|(key, _)| *key);
        let is_full = query.is_paged() && rows.len() == query.limit as usize;
        let next = rows.last().filter(|_| is_full).map(|(key, _)| *key);
        let log = |cause: &Cause| tracing::error!(%cause, "overdue hold cannot be decoded; it is skipped");
        Self { holds: rows.into_iter().filter_map(|(_, hold)| hold.inspect_err(log).ok()).collect(), next }
    }
}

/// An overdue hold, and the number of tickets that its user holds in all (0 if the event has no limit per
/// user).
pub(crate) struct OverdueHold {
    pub(crate) booking: Booking,
    pub(crate) user_tickets: u32,
}

/// The rows that a batch needs, updated with the changes of its commands during the fold.
#[derive(Default)]
pub(crate) struct LoadedRows {
    pub(crate) events: BTreeMap<EventId, RowResult<Event>>,
    pub(crate) bookings: BTreeMap<BookingId, RowResult<Arc<Booking>>>,
    pub(crate) refunds: BTreeMap<(BookingId, TransactionId), RowResult<Refund>>,
    pub(crate) user_tickets: BTreeMap<(EventId, UserId), u32>,
    /// The external references of the batch's orders that bookings of their events have.
    pub(crate) external_refs: BTreeSet<(EventId, ExternalRef)>,
    /// Responses stored under the batch's keys, by scope and key; none older than a day.
    pub(crate) keys: BTreeMap<(String, String), StoredResponse>,
    /// Events that another session has locked: nothing is decided with their loaded rows.
    pub(crate) busy: BTreeSet<EventId>,
}

/// A response stored under an idempotency key.
#[derive(Clone)]
pub(crate) struct StoredResponse {
    pub(crate) fingerprint: [u8; 32],
    pub(crate) response: Arc<[u8]>,
}

/// A response to be stored, and the time from which it counts.
pub(crate) struct NewStoredResponse {
    pub(crate) stored: StoredResponse,
    pub(crate) at: Timestamp,
}

/// The changes of a batch, each row once, in the order in which rows are locked.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) events: BTreeMap<EventId, EventChange>,
    pub(crate) bookings: BTreeMap<BookingId, BookingChange>,
    pub(crate) user_tickets: BTreeMap<(EventId, UserId), u32>,
    pub(crate) refunds: BTreeMap<RefundId, RefundChange>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) keys: BTreeMap<(String, String), NewStoredResponse>,
}

/// A new or changed event.
pub(crate) struct EventChange {
    pub(crate) event: Event,
    /// The ledger number that was loaded: the guard of the update. `None` for a new event.
    pub(crate) loaded_seq: Option<u64>,
    /// The counters of the ticket types that were loaded: only those that differ are written.
    pub(crate) loaded_types: Vec<TypeInventory>,
    /// True if the description changed, and not only the counters.
    pub(crate) details_changed: bool,
}

/// A new or changed booking.
pub(crate) struct BookingChange {
    pub(crate) booking: Arc<Booking>,
    /// The version that was loaded: the guard of the update. `None` for a new booking.
    pub(crate) loaded_version: Option<u32>,
}

/// A new or changed refund.
pub(crate) struct RefundChange {
    pub(crate) refund: Refund,
    /// The status that was loaded: the guard of the update. `None` for a new refund.
    pub(crate) loaded_status: Option<RefundStatus>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.keys.is_empty()
    }
}

/// Decides every command in order. Returns one reply each, to be sent once the changes are durable.
pub(crate) async fn fold<T: Tx>(tx: &mut T, batch: &[Submission]) -> Result<(Vec<Reply>, Changes), Fault> {
    let loaded = tx.load(batch).await?;
    let now = tx.now().await?;
    let mut fold =
        Fold { tx, loaded, now, changes: Changes::default(), overdue_cursors: Vec::new(), freed: 0 };
    let mut replies = Vec::with_capacity(batch.len());
    for submission in batch {
        replies.push(fold.process_submission(submission).await?);
    }
    let Changes { events, user_tickets, .. } = &mut fold.changes;
    // If this batch removed the event's limit per user, its counts are not written.
    user_tickets.retain(|(event, _), _| {
        events.get(event).is_some_and(|change| change.event.details.max_tickets_per_user.is_some())
    });
    Ok((replies, fold.changes))
}

struct Fold<'t, T> {
    tx: &'t mut T,
    loaded: LoadedRows,
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
    /// Returns the response stored under the submission's key; otherwise decides the command and stores the
    /// response.
    async fn process_submission(&mut self, submission: &Submission) -> Result<Reply, Fault> {
        let is_busy = self.loaded.busy.contains(&submission.command.event_id());
        let Some(idempotency) = submission.idempotency.as_ref() else {
            return if is_busy { Ok(Reply::Busy) } else { self.process_command(&submission.command).await };
        };
        let key = (idempotency.scope().to_owned(), idempotency.key.clone());
        if let Some(stored) = self.loaded.keys.get(&key).filter(|_| guard!(ResponseReplay)) {
            if guard!(FingerprintCheck: stored.fingerprint != idempotency.fingerprint) {
                return Ok(Reply::KeyReused);
            }
            let response = stored.response.clone();
            return Ok(Reply::Decided(CommandOutput::Stored { response, replayed: true }));
        }
        if is_busy {
            return Ok(Reply::Busy);
        }
        let reply = self.process_command(&submission.command).await?;
        let Some(answer) = reply.answer() else { return Ok(reply) };
        let Some(bytes) = (idempotency.serialize_response)(answer, self.now) else { return Ok(reply) };
        let stored = StoredResponse { fingerprint: idempotency.fingerprint, response: bytes.into() };
        self.loaded.keys.insert(key.clone(), stored.clone());
        self.changes.keys.insert(key, NewStoredResponse { stored: stored.clone(), at: self.now });
        Ok(Reply::Decided(CommandOutput::Stored { response: stored.response, replayed: false }))
    }

    /// Decides a command, frees overdue holds if that is needed, and applies the change.
    async fn process_command(&mut self, command: &Command) -> Result<Reply, Fault> {
        let mut exhausted_scopes = Vec::new();
        loop {
            let decision = match self.decide(command, &exhausted_scopes) {
                Ok(decision) => decision,
                Err(cause) => return Ok(Reply::Failed(Fault::Broken(cause))),
            };
            match decision {
                Decision::Answer(answer) => return Ok(Reply::Decided(CommandOutput::Fresh(answer))),
                Decision::Change(change) => {
                    let answer = self.apply(command.event_id(), *change);
                    return Ok(Reply::Decided(CommandOutput::Fresh(answer)));
                }
                Decision::FreeOverdue(_) if self.freed >= OVERDUE_PER_BATCH_MAX => return Ok(Reply::Requeue),
                Decision::FreeOverdue(shortage) => {
                    if !self.free_overdue(command, &shortage).await? {
                        exhausted_scopes.push(shortage.scope);
                    }
                }
            }
        }
    }

    fn decide(&self, command: &Command, exhausted_scopes: &[HoldScope]) -> Result<Decision, Cause> {
        let event = command.event_id();
        let booking = command.booking_id().and_then(|id| self.loaded.bookings.get(&id));
        let booking = booking.map(Result::as_ref).transpose().map_err(Clone::clone)?;
        // A booking of another event is not visible, except to an order, whose booking id it takes.
        let booking = booking.filter(|booking| booking.event_id == event || command.booked_user().is_some());
        let refund = match command.captured() {
            Some(payment) => self.loaded.refunds.get(&payment).map(Result::as_ref).transpose(),
            None => Ok(None),
        };
        let refund = refund.map_err(Clone::clone)?;
        let user = command.booked_user().or_else(|| booking.map(|booking| &booking.user));
        let reference = command.external_ref().map(|reference| (event, reference.clone()));
        let is_external_ref_in_use =
            reference.is_some_and(|reference| self.loaded.external_refs.contains(&reference));
        let counted = |user: &UserId| self.loaded.user_tickets.get(&(event, user.clone())).copied();
        let event = self.loaded.events.get(&event).map(Result::as_ref).transpose().map_err(Clone::clone)?;
        let limited = event.is_some_and(|event| event.details.max_tickets_per_user.is_some());
        let user_tickets = user.filter(|_| limited).and_then(counted).unwrap_or(0);
        let snapshot =
            Snapshot { event, booking, refund, user_tickets, is_external_ref_in_use, exhausted_scopes };
        decide(&snapshot, command, self.now).map_err(Cause::new)
    }

    /// Applies a change to the loaded rows, which later commands see, and adds it to the rows to write.
    fn apply(&mut self, event_id: EventId, change: Change) -> Answer {
        let Change { details, inventory, booking, refund, user_tickets, entries, answer } = change;
        let known = self.loaded.events.get(&event_id).and_then(|event| event.as_ref().ok());
        let loaded_seq = known.map(|event| event.inventory.seq);
        let details_changed = details.is_some();
        let details = details.or_else(|| known.map(|event| event.details.clone()));
        if let Some(details) = details {
            let event = Event { id: event_id, details, inventory };
            let change = self.changes.events.entry(event_id).or_insert_with(|| EventChange {
                event: event.clone(),
                loaded_seq,
                loaded_types: known.map(|event| event.inventory.types.clone()).unwrap_or_default(),
                details_changed: false,
            });
            change.event = event.clone();
            change.details_changed |= details_changed;
            self.loaded.events.insert(event_id, Ok(event));
        }
        if let Some(booking) = booking {
            self.loaded.external_refs.extend(booking.external_ref.clone().map(|own| (event_id, own)));
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

    /// Frees overdue holds until the missing tickets are available, the batch has freed its maximum, or none
    /// is left. Returns true if any was freed.
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
            // A hold that cannot be freed does not block the order: the next one is tried.
            if let Ok(Decision::Change(change)) = self.decide(&expire, &[]) {
                self.apply(event_id, *change);
                self.freed += 1;
                any = true;
                missing = missing.saturating_sub(booking.items.quantity());
            }
        }
        Ok(any)
    }

    /// The next overdue hold of a scope, with the changes of this batch taken into account.
    async fn next_overdue(
        &mut self,
        event: EventId,
        scope: &HoldScope,
    ) -> Result<Option<Arc<Booking>>, Fault> {
        let known =
            self.overdue_cursors.iter().position(|cursor| cursor.event == event && cursor.scope == *scope);
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
            let cursor = &mut self.overdue_cursors[index];
            while let Some(id) = cursor.queue.pop_front() {
                if let Some(Ok(booking)) = self.loaded.bookings.get(&id)
                    && booking.overdue(now)
                {
                    return Ok(Some(booking.clone()));
                }
            }
            if cursor.exhausted {
                return Ok(None);
            }
            let query =
                OverdueQuery { event, scope: &cursor.scope, now, after: cursor.after, limit: OVERDUE_PAGE };
            let page = self.tx.overdue(&query).await?;
            cursor.pages += 1;
            cursor.exhausted = page.next.is_none() || cursor.pages == OVERDUE_PAGES_MAX;
            cursor.after = page.next;
            for hold in page.holds {
                cursor.queue.push_back(hold.booking.id);
                let key = (event, hold.booking.user.clone());
                self.loaded.user_tickets.entry(key).or_insert(hold.user_tickets);
                self.loaded.bookings.entry(hold.booking.id).or_insert_with(|| Ok(Arc::new(hold.booking)));
            }
        }
    }
}
