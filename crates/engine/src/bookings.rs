//! The use cases of a booking.

use std::sync::Arc;

use coordination::{Key, LockOptions, Tenure};
use domain::{
    Action, Actor, Ask, Booking, BookingId, BookingStatus, Cancellation, Confirmation, EventId, Money, Note,
    Order, Refusal, TransactionId, UserId,
};
use store::{BookingList, Keep, Page};

use crate::limit::BOOKING_LOCK_WAIT_MAX;
use crate::{Attempt, Caller, Engine, Error, Given, Reader};

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

/// A captured payment, as a trusted service reports it.
#[derive(Clone, Debug)]
pub struct CapturedPayment {
    /// The payment provider's name for it.
    pub transaction: TransactionId,
    /// How much was captured, where the service says.
    pub amount: Option<Money>,
}

impl Engine {
    /// Takes tickets: all that are asked for, or none.
    ///
    /// The limiter stands before everything else, and its limit is the booked user's, whoever calls.
    pub async fn book(
        self: &Arc<Self>,
        caller: Caller,
        request: OrderRequest,
        keep: Option<Arc<Keep>>,
    ) -> Attempt {
        let engine = self.clone();
        self.detached(async move {
            let OrderRequest { event_id, user, ask, expected_total, payment_method } = request;
            let (rule, limited, booking_id) = (engine.policy.book, user.clone(), engine.booking_id());
            let order = Order { event_id, booking_id, user, ask, expected_total, payment_method };
            let work = engine.submit(caller, Action::Book(Box::new(order)), keep);
            engine.limited(rule, &limited, work).await
        })
        .await
    }

    /// Reports a captured payment: the booking ends up paid, or the payment is to be given back.
    pub async fn confirm(
        self: &Arc<Self>,
        caller: Caller,
        id: BookingId,
        payment: CapturedPayment,
        keep: Option<Arc<Keep>>,
    ) -> Result<Given, Error> {
        let engine = self.clone();
        self.detached_unlimited(async move {
            let event_id = engine.event_of(&caller.actor, id).await?;
            let _turn = engine.booking_turn(id).await;
            let (refund_id, CapturedPayment { transaction, amount }) = (engine.refund_id(), payment);
            let paid = Confirmation { event_id, booking_id: id, transaction, amount, refund_id };
            engine.submit(caller, Action::Confirm(Box::new(paid)), keep).await
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
        keep: Option<Arc<Keep>>,
    ) -> Attempt {
        let engine = self.clone();
        self.detached(async move {
            let limited = match &caller.actor {
                Actor::User(user) => Some(user.clone()),
                Actor::Service(_) | Actor::Admin(_) | Actor::System => None,
            };
            let work = async {
                let event_id = engine.event_of(&caller.actor, id).await?;
                let _turn = engine.booking_turn(id).await;
                let refund_id = engine.refund_id();
                let wish = Cancellation { event_id, booking_id: id, reason, refund_id };
                engine.submit(caller, Action::Cancel(Box::new(wish)), keep).await
            };
            match limited {
                Some(user) => engine.limited(engine.policy.cancel, &user, work).await,
                None => Attempt { verdict: None, outcome: work.await },
            }
        })
        .await
    }

    /// The booking, if it admits its bearer to an event: confirmed, and for that event.
    pub async fn admits(
        &self,
        reader: &Reader,
        id: BookingId,
        event: EventId,
    ) -> Result<Option<Booking>, Error> {
        let booking = self.read(reader, |store| async move { store.booking(id).await }).await?;
        Ok(booking
            .filter(|booking| booking.event_id == event && booking.status() == BookingStatus::Confirmed))
    }

    /// One booking. For a user, one of somebody else is as good as none.
    pub async fn booking(&self, reader: &Reader, id: BookingId) -> Result<Booking, Error> {
        let booking = self.read(reader, |store| async move { store.booking(id).await }).await?;
        let visible = booking.filter(|booking| match reader {
            Reader::User(user) => *user == booking.user,
            Reader::Service => true,
            Reader::Address(_) => false,
        });
        visible.ok_or_else(|| Refusal::NotFound("booking").into())
    }

    /// The event of a booking that is to be changed. For a user, one of somebody else is as good as none.
    async fn event_of(&self, actor: &Actor, id: BookingId) -> Result<EventId, Error> {
        let booking = self.ports.store.booking(id).await?;
        let visible = booking.filter(|booking| match actor {
            Actor::User(user) => *user == booking.user,
            Actor::Service(_) | Actor::Admin(_) | Actor::System => true,
        });
        visible.map(|booking| booking.event_id).ok_or_else(|| Refusal::NotFound("booking").into())
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

    /// Waits a little for `booking:{id}`, then goes on without it: the database decides who wins, the lock
    /// only keeps those who want the same booking from asking all at once.
    async fn booking_turn(&self, id: BookingId) -> Option<Tenure> {
        let key = Key::new("booking", &id.to_string()).ok()?;
        let options = LockOptions { wait: BOOKING_LOCK_WAIT_MAX, ..LockOptions::default() };
        self.ports.lock.acquire(&key, options).await.ok()
    }
}
