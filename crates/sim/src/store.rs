//! The shared store with injected faults, and a checker of each reply that it gives.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::{
    Action, Answer, AuditReport, Booking, BookingId, BookingStatus, Entry, EntryKind, Event, EventId, Refund,
    RefundId, RefundStatus, Refusal, Timestamp, UserId,
};
use store::{
    BookingList, CancelledEvent, Cause, CommandOutput, Consumer, Cursor, CursorFilter, DueHold,
    EntryWithBooking, Fault as StoreFault, Page, Reply, Sqlite, Stats, Store, StoreHealth, Submission,
};
use tokio::time::sleep;

use crate::deadlines;
use crate::ports::ProcessContext;
use crate::scenario::Fault;

/// The shared store with injected faults.
pub(crate) struct FaultyStore {
    pub(crate) context: ProcessContext,
    pub(crate) shared: Arc<Sqlite>,
}

fn fail_all(batch: &[Submission], fault: fn(Cause) -> StoreFault) -> Vec<Reply> {
    batch.iter().map(|_| Reply::Failed(fault(Cause::new("injected")))).collect()
}

impl FaultyStore {
    /// Executes a batch in one instant of the simulation, and checks the replies against the state after it.
    async fn execute_and_check(&self, batch: Vec<Submission>) -> Vec<Reply> {
        let world = &self.context.world;
        let now = world.now();
        let replies = self.shared.execute(batch.clone()).await;
        if batch.len() > 1 {
            world.record_coverage("store: batch of several commands");
        }
        for (submission, reply) in batch.iter().zip(&replies) {
            let request = submission.command.request.as_str();
            world.log(format_args!("store, for {}: {request}: {}", self.context.number, result_name(reply)));
            world.record_executed(request);
            world.record_coverage(&format!(
                "{}: {}",
                action_name(&submission.command.action),
                result_name(reply)
            ));
            self.check_reply(submission, reply, batch.len()).await;
            if let Some(violation) = deadlines::check(&*self.shared, submission, reply, now).await {
                world.report_violation(format!("{request}: {violation}"));
            }
        }
        replies
    }

    async fn check_reply(&self, submission: &Submission, reply: &Reply, batch_size: usize) {
        let world = &self.context.world;
        let command = &submission.command;
        let event = command.event_id();
        let request = command.request.as_str();
        match reply {
            Reply::Failed(StoreFault::Broken(cause)) => {
                let is_damaged = world.damaged_rows(|damaged| {
                    damaged.events.contains(&event)
                        || command.booking_id().is_some_and(|id| damaged.bookings.contains(&id))
                });
                if !is_damaged {
                    world.report_violation(format!("{request} failed without an injected fault: {cause}"));
                }
            }
            Reply::Failed(StoreFault::Unavailable(cause) | StoreFault::OutcomeUnknown(cause)) => {
                if !cause.to_string().contains("interrupted") {
                    world.report_violation(format!("{request} failed without an injected fault: {cause}"));
                }
            }
            Reply::Decided(CommandOutput::Fresh(Answer::Refused(refusal))) => {
                self.check_refusal(command, refusal, batch_size).await;
            }
            Reply::Decided(_) | Reply::KeyReused | Reply::Requeue | Reply::Busy => {}
        }
    }

    /// Checks that a command is not refused for a ticket that an overdue hold occupies or that is available.
    async fn check_refusal(&self, command: &domain::Command, refusal: &Refusal, batch_size: usize) {
        let world = &self.context.world;
        let event = command.event_id();
        let request = command.request.as_str();
        if world.damaged_rows(|damaged| damaged.events.contains(&event)) {
            return;
        }
        let user: Option<&UserId> = match refusal {
            Refusal::SoldOut { .. } | Refusal::InsufficientAvailability { .. } => None,
            Refusal::BookingLimitExceeded { detail } if detail.contains("per user") => command.booked_user(),
            Refusal::HoldExpired { refund, .. } if batch_size == 1 => {
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
                world.report_violation(format!(
                    "{request}: {refusal}, while the hold {} is overdue",
                    hold.booking
                ));
            }
        }
    }

    /// Checks that a late payment is refunded only if its tickets are no longer available.
    async fn check_late_refund(&self, request: &str, refund: &Refund) {
        let Ok(Some(booking)) = self.shared.booking(refund.booking_id).await else { return };
        let Ok(Some(event)) = self.shared.event(refund.event_id).await else { return };
        let fits = booking.items.iter().all(|item| {
            event.index_of(item.ticket_type).is_some_and(|index| event.available_of(index) >= item.quantity)
        });
        let no_user_limit = event.details.max_tickets_per_user.is_none();
        // A repeated webhook gets the result from the time when the refund was recorded.
        let last = self.shared.ledger(event.id, event.inventory.seq.saturating_sub(1), 1).await;
        let fresh = last.is_ok_and(|page| {
            let is_new =
                |entry: &Entry| entry.kind == EntryKind::RefundRequested && entry.request.as_str() == request;
            page.rows.iter().any(is_new)
        });
        if fresh && no_user_limit && fits && event.available() >= booking.items.quantity() {
            self.context
                .world
                .report_violation(format!("{request}: refunded although its tickets are available"));
        }
    }

    async fn read<T>(&self, work: impl Future<Output = Result<T, StoreFault>>) -> Result<T, StoreFault> {
        self.context.delay(Fault::ReadSlow).await;
        if self.context.world.should_inject(Fault::ReadUnavailable) {
            return Err(StoreFault::Unavailable(Cause::new("injected")));
        }
        if self.context.world.should_inject(Fault::ReadCrash) {
            return self.context.crash().await;
        }
        let result = work.await;
        self.context.world.log(format_args!("read by {}: {}", self.context.number, result.is_ok()));
        result
    }
}

/// Returns a short name of an action, for the trace and for coverage.
fn action_name(action: &Action) -> &'static str {
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

/// Returns a short name of a reply, for the trace and for coverage.
fn result_name(reply: &Reply) -> &'static str {
    match reply {
        Reply::Decided(CommandOutput::Fresh(Answer::Refused(refusal))) => refusal.code(),
        Reply::Decided(CommandOutput::Fresh(Answer::Booking(booking))) => booking.status().as_str(),
        Reply::Decided(CommandOutput::Fresh(Answer::Event(_))) => "event",
        Reply::Decided(CommandOutput::Fresh(Answer::Refund(refund))) => refund.status.as_str(),
        Reply::Decided(CommandOutput::Stored { replayed: false, .. }) => "stored",
        Reply::Decided(CommandOutput::Stored { replayed: true, .. }) => "replayed",
        Reply::KeyReused => "key reused",
        Reply::Requeue => "requeued",
        Reply::Busy => "busy",
        Reply::Failed(StoreFault::Broken(_)) => "broken",
        Reply::Failed(_) => "failed",
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn execute(&self, mut batch: Vec<Submission>) -> Vec<Reply> {
        let world = &self.context.world;
        self.context.delay(Fault::StoreSlow).await;
        if world.should_inject(Fault::StoreStalled) {
            sleep(Duration::from_secs(4 + world.random_below(9))).await;
            self.context.process.wait_until_running().await;
        }
        if world.should_inject(Fault::StoreUnavailable) {
            return fail_all(&batch, StoreFault::Unavailable);
        }
        if world.should_inject(Fault::CutBeforeCommit) {
            return fail_all(&batch, StoreFault::OutcomeUnknown);
        }
        if world.should_inject(Fault::CrashBefore) {
            return self.context.crash().await;
        }
        if world.should_inject(Fault::CutAfterCommit) {
            self.execute_and_check(batch.clone()).await;
            return fail_all(&batch, StoreFault::OutcomeUnknown);
        }
        if batch.len() > 1 && world.should_inject(Fault::CutHalfway) {
            let unknown = fail_all(&batch, StoreFault::OutcomeUnknown);
            batch.truncate(batch.len() / 2);
            self.execute_and_check(batch).await;
            return unknown;
        }
        if world.should_inject(Fault::CrashAfter) {
            self.execute_and_check(batch).await;
            return self.context.crash().await;
        }
        let replies = self.execute_and_check(batch).await;
        self.context.delay(Fault::StoreSlowReply).await;
        replies
    }

    async fn try_execute(&self, batch: Vec<Submission>) -> Vec<Reply> {
        let world = &self.context.world;
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
        consumer: &Consumer,
        which: CursorFilter,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Vec<Cursor>, StoreFault> {
        self.read(self.shared.cursors(consumer, which, after, limit)).await
    }

    async fn entries_with_bookings(
        &self,
        event: EventId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<EntryWithBooking>, StoreFault> {
        self.read(self.shared.entries_with_bookings(event, after, limit)).await
    }

    async fn save_cursors(
        &self,
        consumer: &Consumer,
        processed: Vec<(EventId, u64)>,
    ) -> Result<(), StoreFault> {
        self.read(self.shared.save_cursors(consumer, processed)).await
    }

    async fn pending_entry_count(&self, consumer: &str) -> Result<u64, StoreFault> {
        self.read(self.shared.pending_entry_count(consumer)).await
    }

    async fn health(&self) -> Result<StoreHealth, StoreFault> {
        self.read(self.shared.health()).await
    }

    async fn audit(&self) -> Result<AuditReport, StoreFault> {
        self.read(self.shared.audit()).await
    }
}
