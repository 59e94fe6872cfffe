//! Completes the cancellation of an event: cancels its live bookings, each of which gets a refund if it is
//! paid.
//!
//! It searches for cancelled events that have live bookings, so it needs no state and continues after a
//! crash. If there are none, it reads the few cancelled events, and no booking.

use std::sync::Arc;

use async_trait::async_trait;
use domain::{Action, Actor, BookingId, BookingStatus, Cancellation, EventId, RequestId};
use futures_util::future::join_all;
use store::Fault;

use super::Chore;
use super::backoff::Backoff;
use crate::limit::CHORE_PAGE;
use crate::{Caller, Engine, Error};

/// The cancellation reason of bookings that are cancelled with their event.
const REASON: &str = "The event was cancelled.";

/// The chore, with its backoff.
#[derive(Default)]
pub(crate) struct EventCancellation {
    /// Backoff for bookings that could not be cancelled.
    backoff: Backoff,
}

#[async_trait]
impl Chore for EventCancellation {
    fn name(&self) -> &'static str {
        "event-cancellation"
    }

    async fn run_once(&mut self, engine: &Arc<Engine>) -> Result<(), Error> {
        let request = super::request(engine, "cancel");
        self.backoff.begin_run();
        let mut after = None;
        loop {
            let page = engine.ports.store.cancelled_events(after, CHORE_PAGE).await?;
            for cancelled in page.iter().filter(|cancelled| cancelled.has_live_bookings) {
                for status in [BookingStatus::Pending, BookingStatus::Confirmed] {
                    self.cancel_bookings(engine, cancelled.event, status, &request).await?;
                }
            }
            if page.len() < CHORE_PAGE as usize {
                return Ok(());
            }
            after = page.last().map(|cancelled| cancelled.event);
        }
    }
}

impl EventCancellation {
    /// Cancels an event's bookings in a status, page by page. An event is left for the next run if several of
    /// its bookings fail and none succeeds.
    async fn cancel_bookings(
        &mut self,
        engine: &Engine,
        event: EventId,
        status: BookingStatus,
        request: &RequestId,
    ) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page = engine.ports.store.bookings_in_status(event, status, after, CHORE_PAGE).await?;
            let due = |id: &&BookingId| self.backoff.is_due(event, **id);
            let due: Vec<BookingId> = page.iter().filter(due).copied().collect();
            let outcomes = join_all(due.iter().map(|id| cancel(engine, event, *id, request))).await;
            let mut failed = 0;
            let mut first = None;
            for (id, outcome) in due.iter().zip(outcomes) {
                match outcome {
                    Ok(()) => self.backoff.record_success(event, *id),
                    Err(error) => {
                        failed += 1;
                        if matches!(error, Error::Fault(Fault::Broken(_))) {
                            self.backoff.record_failure(event, *id);
                        }
                        first.get_or_insert((*id, error));
                    }
                }
            }
            if let Some((booking, error)) = first {
                tracing::error!(
                    %event, failed, %booking, error = ?error,
                    "bookings of a cancelled event were not cancelled"
                );
            }
            if page.len() < CHORE_PAGE as usize || self.backoff.is_at_fault(event) {
                return Ok(());
            }
            after = page.last().copied();
        }
    }
}

async fn cancel(
    engine: &Engine,
    event_id: EventId,
    booking_id: BookingId,
    request: &RequestId,
) -> Result<(), Error> {
    let caller = Caller { actor: Actor::System, request: request.clone(), trace: None, deadline: None };
    let reason = REASON.parse().ok();
    let cancellation = Cancellation { event_id, booking_id, reason, refund_id: engine.refund_id() };
    match engine.submit(caller, Action::Cancel(Box::new(cancellation)), None).await {
        // A refusal means that another command was faster, which has the same effect.
        Ok(_) | Err(Error::Refused(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
