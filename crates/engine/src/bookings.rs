//! The use cases of a booking.

use std::sync::Arc;

use coordination::{Key, LockOptions, Tenure};
use domain::{
    Action, Actor, Answer, Ask, Booking, BookingId, BookingStatus, Cancellation, Confirmation, EventId,
    Money, Note, Order, Refusal, TransactionId, UserId,
};
use store::{BookingList, Cause, Fault, Page};

use crate::limit::BOOKING_LOCK_WAIT_MAX;
use crate::{Caller, Engine, Error};

/// Tickets asked for.
#[derive(Clone, Debug)]
pub struct OrderRequest {
    /// The event.
    pub event_id: EventId,
    /// Who will own the booking.
    pub user: UserId,
    /// Which tickets.
    pub ask: Ask,
    /// What the buyer thinks they cost.
    pub expected_total: Option<Money>,
    /// How the buyer means to pay.
    pub payment_method: Option<Note>,
}

impl Engine {
    /// Takes tickets: all that are asked for, or none.
    ///
    /// The limiter stands before everything else, and its limit is the booked user's, whoever calls.
    pub async fn book(
        self: &Arc<Self>,
        caller: Caller,
        request: OrderRequest,
    ) -> Result<Arc<Booking>, Error> {
        let engine = self.clone();
        self.detached(async move {
            engine.admit(engine.policy.book, &request.user).await?;
            let OrderRequest { event_id, user, ask, expected_total, payment_method } = request;
            let booking_id = engine.booking_id();
            let order = Order { event_id, booking_id, user, ask, expected_total, payment_method };
            booked(engine.submit(caller, Action::Book(Box::new(order))).await?)
        })
        .await
    }

    /// Reports a captured payment: the booking ends up paid, or the payment is to be given back.
    pub async fn confirm(
        self: &Arc<Self>,
        caller: Caller,
        id: BookingId,
        transaction: TransactionId,
        amount: Option<Money>,
    ) -> Result<Arc<Booking>, Error> {
        let engine = self.clone();
        self.detached(async move {
            let event_id = engine.booking(&caller.actor, id).await?.event_id;
            let _turn = engine.booking_turn(id).await;
            let refund_id = engine.refund_id();
            let paid = Confirmation { event_id, booking_id: id, transaction, amount, refund_id };
            booked(engine.submit(caller, Action::Confirm(Box::new(paid))).await?)
        })
        .await
    }

    /// Gives a booking up and frees its tickets; what was paid is to be given back, once.
    ///
    /// Users are limited, every well-formed attempt counts; services and organisers are not.
    pub async fn cancel(
        self: &Arc<Self>,
        caller: Caller,
        id: BookingId,
        reason: Option<Note>,
    ) -> Result<Arc<Booking>, Error> {
        let engine = self.clone();
        self.detached(async move {
            if let Actor::User(user) = &caller.actor {
                engine.admit(engine.policy.cancel, user).await?;
            }
            let event_id = engine.booking(&caller.actor, id).await?.event_id;
            let _turn = engine.booking_turn(id).await;
            let refund_id = engine.refund_id();
            let wish = Cancellation { event_id, booking_id: id, reason, refund_id };
            booked(engine.submit(caller, Action::Cancel(Box::new(wish))).await?)
        })
        .await
    }

    /// Frees an unpaid booking whose time has passed. A system action; refused with `invalid_state` where
    /// the booking is not an overdue hold.
    pub async fn expire(self: &Arc<Self>, caller: Caller, id: BookingId) -> Result<Arc<Booking>, Error> {
        let engine = self.clone();
        self.detached(async move {
            let event_id = engine.booking(&Actor::System, id).await?.event_id;
            let caller = Caller { actor: Actor::System, ..caller };
            booked(engine.submit(caller, Action::Expire { event_id, booking_id: id }).await?)
        })
        .await
    }

    /// One booking. For a user, one of somebody else is as good as none.
    pub async fn booking(&self, asker: &Actor, id: BookingId) -> Result<Booking, Error> {
        let booking = self.ports.store.booking(id).await?;
        let visible = booking.filter(|booking| match asker {
            Actor::User(user) => *user == booking.user,
            Actor::Service(_) | Actor::Admin(_) | Actor::System => true,
        });
        visible.ok_or_else(|| Refusal::NotFound("booking").into())
    }

    /// Up to `limit` bookings of a list, newest first.
    pub async fn bookings(
        &self,
        list: BookingList,
        status: Option<BookingStatus>,
        limit: u32,
    ) -> Result<Page<Booking>, Error> {
        Ok(self.ports.store.bookings(list, status, limit).await?)
    }

    /// Waits a little for `booking:{id}`, then goes on without it: the database decides who wins, the lock
    /// only keeps those who want the same booking from asking all at once.
    async fn booking_turn(&self, id: BookingId) -> Option<Tenure> {
        let key = Key::new("booking", &id.to_string()).ok()?;
        let options = LockOptions { wait: BOOKING_LOCK_WAIT_MAX, ..LockOptions::default() };
        self.ports.lock.acquire(&key, options).await.ok()
    }
}

fn booked(answer: Answer) -> Result<Arc<Booking>, Error> {
    match answer {
        Answer::Booking(booking) => Ok(booking),
        Answer::Refused(refusal) => Err(refusal.into()),
        Answer::Event(_) | Answer::Refund(_) => {
            Err(Fault::Broken(Cause::new("a booking was answered with something else")).into())
        }
    }
}
