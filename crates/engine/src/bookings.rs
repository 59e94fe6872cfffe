//! The use cases of bookings.

use std::sync::Arc;

use coordination::{Key, LockGuard, LockOptions};
use domain::{
    Action, Actor, Booking, BookingId, BookingStatus, Cancellation, CapturedPayment, Confirmation, EventId,
    Note, Order, Refusal,
};
use store::{BookingList, Cause, Fault, Idempotency, Page};

use crate::limit::{BOOKING_LOCK_WAIT_MAX, OFFSET_STEP, OFFSET_STEPS_MAX};
use crate::{Caller, CommandOutput, Engine, Error, RateLimitedResult, Reader};

/// A page of a list by its offset.
#[derive(Clone, Copy, Debug)]
pub struct OffsetPage {
    /// Number of bookings before the page.
    pub skip: u32,
    /// Maximum number of bookings in the page.
    pub limit: u32,
    /// Maximum number of bookings that are read and counted, skipped ones included.
    pub count_max: u32,
}

impl Engine {
    /// Books tickets: all that are ordered, or none.
    ///
    /// The rate limit is that of the booking's owner, not of the caller. Nothing is read or queued before it
    /// is checked.
    pub async fn book(
        self: &Arc<Self>,
        caller: Caller,
        order: Order,
        idempotency: Option<Arc<Idempotency>>,
    ) -> RateLimitedResult {
        let decision = match self.check_rate_limit(self.policy.book, Some(&order.user)).await {
            Ok(decision) => decision,
            Err(error) => return RateLimitedResult::refused(error),
        };
        let engine = self.clone();
        let outcome = self.run_detached(async move {
            engine.submit(caller, Action::Book(Box::new(order)), idempotency).await
        });
        RateLimitedResult { decision, outcome: outcome.await }
    }

    /// Reports a captured payment: the booking becomes confirmed, or a refund is recorded.
    pub async fn confirm(
        self: &Arc<Self>,
        caller: Caller,
        id: BookingId,
        payment: CapturedPayment,
        idempotency: Option<Arc<Idempotency>>,
    ) -> Result<CommandOutput, Error> {
        let engine = self.clone();
        self.run_detached(async move {
            let event_id = engine.event_id_of(&caller.actor, id).await?;
            let _guard = engine.lock_booking(id).await;
            let refund_id = engine.refund_id();
            let confirmation = Confirmation { event_id, booking_id: id, payment, refund_id };
            engine.submit(caller, Action::Confirm(Box::new(confirmation)), idempotency).await
        })
        .await
    }

    /// Cancels a booking and frees its tickets; if it was paid, one refund is recorded.
    ///
    /// Users have a rate limit, for which every well-formed attempt counts; services and organisers have
    /// none. Nothing is read or queued before it is checked.
    pub async fn cancel(
        self: &Arc<Self>,
        caller: Caller,
        id: BookingId,
        reason: Option<Note>,
        idempotency: Option<Arc<Idempotency>>,
    ) -> RateLimitedResult {
        let limited_user = match &caller.actor {
            Actor::User(user) => Some(user),
            Actor::Service(_) | Actor::Admin(_) | Actor::System => None,
        };
        let decision = match self.check_rate_limit(self.policy.cancel, limited_user).await {
            Ok(decision) => decision,
            Err(error) => return RateLimitedResult::refused(error),
        };
        let engine = self.clone();
        let outcome = self.run_detached(async move {
            let event_id = engine.event_id_of(&caller.actor, id).await?;
            let _guard = engine.lock_booking(id).await;
            let refund_id = engine.refund_id();
            let cancellation = Cancellation { event_id, booking_id: id, reason, refund_id };
            engine.submit(caller, Action::Cancel(Box::new(cancellation)), idempotency).await
        });
        RateLimitedResult { decision, outcome: outcome.await }
    }

    /// The booking, if it is confirmed and for this event, so that its holder may be admitted.
    pub async fn confirmed_booking_for(
        &self,
        reader: &Reader,
        id: BookingId,
        event: EventId,
    ) -> Result<Option<Booking>, Error> {
        let booking = self.read(reader, |store| async move { store.booking(id).await }).await?;
        Ok(booking
            .filter(|booking| booking.event_id == event && booking.status() == BookingStatus::Confirmed))
    }

    /// The booking with this id. To a user, a booking of another user does not exist.
    pub async fn booking(&self, reader: &Reader, actor: &Actor, id: BookingId) -> Result<Booking, Error> {
        visible_to(actor, self.read(reader, |store| async move { store.booking(id).await }).await?)
    }

    /// The event of a booking that a command will change.
    async fn event_id_of(&self, actor: &Actor, id: BookingId) -> Result<EventId, Error> {
        Ok(visible_to(actor, self.ports.store.booking(id).await?)?.event_id)
    }

    /// Up to `limit` bookings of a list, newest first.
    pub async fn bookings(
        &self,
        reader: &Reader,
        list: BookingList,
        status: Option<BookingStatus>,
        limit: u32,
    ) -> Result<Page<Booking>, Error> {
        self.read(reader, |store| async move { store.bookings(list, status, limit).await }).await
    }

    /// A page of a list, only with bookings in `status` if it is set, and the number of bookings in the list
    /// up to `count_max`. The cost is proportional to the number counted; the whole read occupies one read
    /// slot.
    pub async fn bookings_at(
        &self,
        reader: &Reader,
        list: BookingList,
        status: Option<BookingStatus>,
        page: OffsetPage,
    ) -> Result<(Vec<Booking>, u32), Error> {
        let OffsetPage { skip, limit, count_max } = page;
        self.read(reader, move |store| async move {
            let mut list = list;
            let mut rows = Vec::new();
            let mut seen = 0;
            // A filtered page reads a bounded number of bookings and may be short, so the number of pages is
            // bounded, too.
            for _ in 0..OFFSET_STEPS_MAX {
                let step = OFFSET_STEP.min(count_max.saturating_sub(seen));
                if step == 0 {
                    break;
                }
                let page = store.bookings(list.clone(), status, step).await?;
                let first = usize::try_from(skip.saturating_sub(seen)).unwrap_or(usize::MAX);
                let missing = (limit as usize).saturating_sub(rows.len());
                seen += u32::try_from(page.rows.len()).unwrap_or(u32::MAX);
                rows.extend(page.rows.into_iter().skip(first).take(missing));
                let Some(next) = page.next else { break };
                list = list.after(next.parse().map_err(|error| Fault::Broken(Cause::new(error)))?);
            }
            Ok((rows, seen))
        })
        .await
    }

    /// Waits up to [`BOOKING_LOCK_WAIT_MAX`] for the lock `booking:{id}`, then continues without it. The
    /// database resolves conflicts; the lock only keeps concurrent commands for one booking from reaching it
    /// at the same time.
    async fn lock_booking(&self, id: BookingId) -> Option<LockGuard> {
        let key = Key::new("booking", &id.to_string()).ok()?;
        let options = LockOptions { wait: BOOKING_LOCK_WAIT_MAX, ..LockOptions::default() };
        self.ports.lock.acquire(&key, options).await.ok()
    }
}

/// The booking, if it exists and is visible to the actor.
fn visible_to(actor: &Actor, booking: Option<Booking>) -> Result<Booking, Error> {
    let visible = booking.filter(|booking| match actor {
        Actor::User(user) => *user == booking.user,
        Actor::Service(_) | Actor::Admin(_) | Actor::System => true,
    });
    visible.ok_or_else(|| Refusal::NotFound("booking").into())
}
