//! Finishes what cancelling an event began: cancels its live bookings, and has every paid one refunded.
//!
//! It looks for cancelled events that still have live bookings, so it needs no memory and goes on after a
//! crash where it was.

use std::sync::Arc;

use async_trait::async_trait;
use domain::{Action, Actor, Cancellation, RequestId};
use futures_util::future::join_all;
use store::DoomedBooking;

use super::Chore;
use crate::limit::CHORE_PAGE;
use crate::{Caller, Engine, Error};

/// What a booking says that ended with its event.
const REASON: &str = "The event was cancelled.";

pub(crate) struct Canceller;

#[async_trait]
impl Chore for Canceller {
    fn name(&self) -> &'static str {
        "canceller"
    }

    async fn run_once(&mut self, engine: &Arc<Engine>) -> Result<(), Error> {
        let request = super::request(engine, "cancel");
        let mut after = None;
        loop {
            let page = engine.ports.store.doomed_bookings(after, CHORE_PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(*last);
            let failed = join_all(page.iter().map(|booking| cancel(engine, booking, &request))).await;
            let failed = failed.into_iter().filter(Result::is_err).count();
            if failed > 0 {
                tracing::error!(failed, "bookings of a cancelled event were not cancelled yet");
            }
        }
    }
}

async fn cancel(engine: &Engine, doomed: &DoomedBooking, request: &RequestId) -> Result<(), Error> {
    let caller = Caller { actor: Actor::System, request: request.clone(), trace: None, gives_up: None };
    let wish = Cancellation {
        event_id: doomed.event,
        booking_id: doomed.booking,
        reason: REASON.parse().ok(),
        refund_id: engine.refund_id(),
    };
    match engine.submit(caller, Action::Cancel(Box::new(wish)), None).await {
        // A refusal means that somebody was faster, which is as good.
        Ok(_) | Err(Error::Refused(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
