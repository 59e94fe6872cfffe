//! The way to the store that all processes share, and a look over its shoulder.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::{
    Action, Answer, AuditReport, Booking, BookingId, BookingStatus, Entry, EntryKind, Event, EventId, Refund,
    RefundId, RefundStatus, Refusal, Timestamp, UserId,
};
use store::{
    BookingList, CancelledEvent, Cause, Cursor, CursorFilter, DueHold, EntryWithBooking, Fault as StoreFault,
    Page, Reply, Sqlite, Stats, Store, StoreHealth, Submission,
};
use tokio::time::sleep;

use crate::deadlines;
use crate::ports::ProcessContext;
use crate::scenario::Fault;

/// A way to the store.
pub(crate) struct FaultyStore {
    pub(crate) place: ProcessContext,
    pub(crate) shared: Arc<Sqlite>,
}

fn all(batch: &[Submission], fault: fn(Cause) -> StoreFault) -> Vec<Reply> {
    batch.iter().map(|_| Reply::Failed(fault(Cause::new("injected")))).collect()
}

impl FaultyStore {
    /// Carries a batch out, in one instant of the simulation, and judges the replies by what then stands.
    async fn execute_and_check(&self, batch: Vec<Submission>) -> Vec<Reply> {
        let world = &self.place.world;
        let now = world.now();
        let replies = self.shared.execute(batch.clone()).await;
        if batch.len() > 1 {
            world.saw("store: a batch of several");
        }
        for (submission, reply) in batch.iter().zip(&replies) {
            let request = submission.command.request.as_str();
            world.note(format_args!("store, for {}: {request}: {}", self.place.number, said(reply)));
            world.executed(request);
            world.saw(&format!("{}: {}", asked(&submission.command.action), said(reply)));
            self.judge(submission, reply, batch.len()).await;
            if let Some(what) = deadlines::check(&*self.shared, submission, reply, now).await {
                world.wrong(format!("{request}: {what}"));
            }
        }
        replies
    }

    async fn judge(&self, submission: &Submission, reply: &Reply, batch: usize) {
        let (world, command) = (&self.place.world, &submission.command);
        let (event, request) = (command.event_id(), command.request.as_str());
        match reply {
            Reply::Failed(StoreFault::Broken(cause)) => {
                let declared = world.poisoned(|poisoned| {
                    poisoned.events.contains(&event)
                        || command.booking_id().is_some_and(|id| poisoned.bookings.contains(&id))
                });
                if !declared {
                    world.wrong(format!("{request} failed, and nothing explains it: {cause}"));
                }
            }
            Reply::Failed(StoreFault::Unavailable(cause) | StoreFault::OutcomeUnknown(cause)) => {
                if !cause.to_string().contains("interrupted") {
                    world.wrong(format!("{request} failed, and nothing explains it: {cause}"));
                }
            }
            Reply::Answered(Answer::Refused(refusal)) => {
                self.check_refusal(command, refusal, batch).await;
            }
            Reply::Answered(_) | Reply::Stored { .. } | Reply::KeyReused | Reply::Requeue | Reply::Busy => {}
        }
    }

    /// Nobody is refused for want of a ticket that an overdue hold keeps, or that is there.
    async fn check_refusal(&self, command: &domain::Command, refusal: &Refusal, batch: usize) {
        let (world, event) = (&self.place.world, command.event_id());
        let request = command.request.as_str();
        if world.poisoned(|poisoned| poisoned.events.contains(&event)) {
            return;
        }
        let user: Option<&UserId> = match refusal {
            Refusal::SoldOut { .. } | Refusal::InsufficientAvailability { .. } => None,
            Refusal::BookingLimitExceeded { detail } if detail.contains("per user") => command.booked_user(),
            Refusal::HoldExpired { refund, .. } if batch == 1 => {
                return self.check_late_refund(request, refund).await;
            }
            _ => return,
        };
        if matches!(refusal, Refusal::BookingLimitExceeded { .. }) && user.is_none() {
            return;
        }
        let ticket_type = match refusal {
            Refusal::SoldOut { ticket_type, .. } | Refusal::InsufficientAvailability { ticket_type, .. } => {
                *ticket_type
            }
            _ => None,
        };
        let due = self.shared.due_holds(world.now(), None, 1_000).await.unwrap_or_default();
        for hold in due.iter().filter(|hold| hold.event == event) {
            let Ok(Some(booking)) = self.shared.booking(hold.booking).await else { continue };
            let helps =
                ticket_type.is_none_or(|wanted| booking.items.iter().any(|item| item.ticket_type == wanted));
            if helps && user.is_none_or(|user| booking.user == *user) {
                world.wrong(format!("{request}: {refusal}, while the hold {} is overdue", hold.booking));
            }
        }
    }

    /// A late payment is given back only where its tickets are gone.
    async fn check_late_refund(&self, request: &str, refund: &Refund) {
        let Ok(Some(booking)) = self.shared.booking(refund.booking_id).await else { return };
        let Ok(Some(event)) = self.shared.event(refund.event_id).await else { return };
        let fits = booking.items.iter().all(|item| {
            event.index_of(item.ticket_type).is_some_and(|place| event.available_of(place) >= item.quantity)
        });
        let roomy = event.details.max_tickets_per_user.is_none();
        // A repeated report hears what was true when the refund was recorded.
        let last = self.shared.ledger(event.id, event.inventory.seq.saturating_sub(1), 1).await;
        let fresh = last.is_ok_and(|page| {
            let news =
                |entry: &Entry| entry.kind == EntryKind::RefundRequested && entry.request.as_str() == request;
            page.rows.iter().any(news)
        });
        if fresh && roomy && fits && event.available() >= booking.items.quantity() {
            self.place.world.wrong(format!("{request}: given back although its tickets are there"));
        }
    }

    async fn read<T>(&self, work: impl Future<Output = Result<T, StoreFault>>) -> Result<T, StoreFault> {
        self.place.delay(Fault::ReadSlow).await;
        if self.place.world.should_inject(Fault::ReadAway) {
            return Err(StoreFault::Unavailable(Cause::new("injected")));
        }
        if self.place.world.should_inject(Fault::ReadCrash) {
            return self.place.die().await;
        }
        let answer = work.await;
        self.place.world.note(format_args!("read by {}: {}", self.place.number, answer.is_ok()));
        answer
    }
}

/// What was asked, in a word.
fn asked(action: &Action) -> &'static str {
    match action {
        Action::CreateEvent(_) => "create event",
        Action::UpdateEvent { .. } => "edit",
        Action::Book(_) => "book",
        Action::Confirm(_) => "confirm",
        Action::Cancel(_) => "cancel",
        Action::Settle(_) => "settle",
        Action::Expire { .. } => "expire",
    }
}

/// What was said, in a word.
fn said(reply: &Reply) -> &'static str {
    match reply {
        Reply::Answered(Answer::Refused(refusal)) => refusal.code(),
        Reply::Answered(Answer::Booking(booking)) => booking.status().as_str(),
        Reply::Answered(Answer::Event(_)) => "event",
        Reply::Answered(Answer::Refund(refund)) => refund.status.as_str(),
        Reply::Stored { replayed: false, .. } => "kept",
        Reply::Stored { replayed: true, .. } => "replayed",
        Reply::KeyReused => "key reused",
        Reply::Requeue => "carried",
        Reply::Busy => "busy",
        Reply::Failed(StoreFault::Broken(_)) => "broken",
        Reply::Failed(_) => "failed",
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn execute(&self, mut batch: Vec<Submission>) -> Vec<Reply> {
        let world = &self.place.world;
        self.place.delay(Fault::StoreSlow).await;
        if world.should_inject(Fault::StoreStuck) {
            sleep(Duration::from_secs(4 + world.below(9))).await;
            self.place.life.step().await;
        }
        if world.should_inject(Fault::StoreAway) {
            return all(&batch, StoreFault::Unavailable);
        }
        if world.should_inject(Fault::OutcomeLost) {
            return all(&batch, StoreFault::OutcomeUnknown);
        }
        if world.should_inject(Fault::CrashBefore) {
            return self.place.die().await;
        }
        if world.should_inject(Fault::OutcomeStands) {
            self.execute_and_check(batch.clone()).await;
            return all(&batch, StoreFault::OutcomeUnknown);
        }
        if batch.len() > 1 && world.should_inject(Fault::OutcomeHalf) {
            let unknown = all(&batch, StoreFault::OutcomeUnknown);
            batch.truncate(batch.len() / 2);
            self.execute_and_check(batch).await;
            return unknown;
        }
        if world.should_inject(Fault::CrashAfter) {
            self.execute_and_check(batch).await;
            return self.place.die().await;
        }
        let replies = self.execute_and_check(batch).await;
        self.place.delay(Fault::StoreSlowAnswer).await;
        replies
    }

    async fn try_execute(&self, batch: Vec<Submission>) -> Vec<Reply> {
        let world = &self.place.world;
        if world.scenario.rate(Fault::StoreBusy) == 0 {
            return self.execute(batch).await;
        }
        let event = |submission: &Submission| submission.command.event_id();
        let events: BTreeSet<EventId> = batch.iter().map(event).collect();
        let busy: BTreeSet<EventId> =
            events.into_iter().filter(|_| world.should_inject(Fault::StoreBusy)).collect();
        let rest: Vec<Submission> = batch.iter().filter(|one| !busy.contains(&event(one))).cloned().collect();
        let replies = if rest.is_empty() { Vec::new() } else { self.execute(rest).await };
        let mut replies = replies.into_iter();
        let reply = |one| {
            if busy.contains(&event(one)) { Reply::Busy } else { replies.next().unwrap_or(Reply::Busy) }
        };
        batch.iter().map(reply).collect()
    }

    async fn event(&self, id: EventId) -> Result<Option<Event>, StoreFault> {
        self.read(self.shared.event(id)).await
    }

    async fn events_by_ids(
        &self,
        ids: Vec<EventId>,
    ) -> Result<Vec<(EventId, Result<Event, Cause>)>, StoreFault> {
        self.read(self.shared.events_by_ids(ids)).await
    }

    async fn events(&self, after: Option<EventId>, limit: u32) -> Result<Page<Event>, StoreFault> {
        self.read(self.shared.events(after, limit)).await
    }

    async fn booking(&self, id: BookingId) -> Result<Option<Booking>, StoreFault> {
        self.read(self.shared.booking(id)).await
    }

    async fn bookings(
        &self,
        list: BookingList,
        status: Option<BookingStatus>,
        limit: u32,
    ) -> Result<Page<Booking>, StoreFault> {
        self.read(self.shared.bookings(list, status, limit)).await
    }

    async fn ledger(&self, event: EventId, after: u64, limit: u32) -> Result<Page<Entry>, StoreFault> {
        self.read(self.shared.ledger(event, after, limit)).await
    }

    async fn refunds(
        &self,
        status: Option<RefundStatus>,
        after: Option<RefundId>,
        limit: u32,
    ) -> Result<Page<Refund>, StoreFault> {
        self.read(self.shared.refunds(status, after, limit)).await
    }

    async fn refund(&self, id: RefundId) -> Result<Option<Refund>, StoreFault> {
        self.read(self.shared.refund(id)).await
    }

    async fn stats(&self) -> Result<Stats, StoreFault> {
        self.read(self.shared.stats()).await
    }

    async fn due_holds(
        &self,
        now: Timestamp,
        after: Option<DueHold>,
        limit: u32,
    ) -> Result<Vec<DueHold>, StoreFault> {
        self.read(self.shared.due_holds(now, after, limit)).await
    }

    async fn cancelled_events(
        &self,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Vec<CancelledEvent>, StoreFault> {
        self.read(self.shared.cancelled_events(after, limit)).await
    }

    async fn bookings_in_status(
        &self,
        event: EventId,
        status: BookingStatus,
        after: Option<BookingId>,
        limit: u32,
    ) -> Result<Vec<BookingId>, StoreFault> {
        self.read(self.shared.bookings_in_status(event, status, after, limit)).await
    }

    async fn prune_keys(&self, before: Timestamp, limit: u32) -> Result<u64, StoreFault> {
        self.read(self.shared.prune_keys(before, limit)).await
    }

    async fn cursors(
        &self,
        stream: Timestamp,
        which: CursorFilter,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Vec<Cursor>, StoreFault> {
        self.read(self.shared.cursors(stream, which, after, limit)).await
    }

    async fn entries_with_bookings(
        &self,
        event: EventId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<EntryWithBooking>, StoreFault> {
        self.read(self.shared.entries_with_bookings(event, after, limit)).await
    }

    async fn save_relay_cursors(
        &self,
        stream: Timestamp,
        published: Vec<(EventId, u64)>,
    ) -> Result<(), StoreFault> {
        self.read(self.shared.save_relay_cursors(stream, published)).await
    }

    async fn unpublished_entry_count(&self) -> Result<u64, StoreFault> {
        self.read(self.shared.unpublished_entry_count()).await
    }

    async fn health(&self) -> Result<StoreHealth, StoreFault> {
        self.read(self.shared.health()).await
    }

    async fn audit(&self) -> Result<AuditReport, StoreFault> {
        self.read(self.shared.audit()).await
    }
}
