//! The use cases of an event.

use std::sync::Arc;

use domain::{Action, Entry, Event, EventId, EventPatch, EventStatus, NewEvent, Refusal};
use store::{Keep, Page, Stats};

use crate::{Caller, Engine, Error, Given};

impl Engine {
    /// Puts an event on sale.
    pub async fn create_event(
        self: &Arc<Self>,
        caller: Caller,
        new: NewEvent,
        keep: Option<Arc<Keep>>,
    ) -> Result<Given, Error> {
        let engine = self.clone();
        self.detached_unlimited(async move {
            engine.submit(caller, Action::CreateEvent(Box::new(new)), keep).await
        })
        .await
    }

    /// Edits, pauses, resumes or cancels an event.
    pub async fn update_event(
        self: &Arc<Self>,
        caller: Caller,
        event_id: EventId,
        patch: EventPatch,
    ) -> Result<Given, Error> {
        let engine = self.clone();
        self.detached_unlimited(async move {
            let cancels = patch.status == Some(EventStatus::Cancelled);
            let action = Action::UpdateEvent { event_id, patch: Box::new(patch) };
            let given = engine.submit(caller, action, None).await?;
            if cancels {
                engine.nudge_canceller();
            }
            Ok(given)
        })
        .await
    }

    /// One event, with every change that was acknowledged before.
    pub async fn event(&self, id: EventId) -> Result<Event, Error> {
        self.ports.store.event(id).await?.ok_or_else(|| Refusal::NotFound("event").into())
    }

    /// Up to `limit` events made before `after`, newest first.
    pub async fn events(&self, after: Option<EventId>, limit: u32) -> Result<Page<Event>, Error> {
        Ok(self.ports.store.events(after, limit).await?)
    }

    /// How many bookings stand where, in all events together, and what the confirmed ones cost.
    pub async fn stats(&self) -> Result<Stats, Error> {
        Ok(self.ports.store.stats().await?)
    }

    /// Up to `limit` ledger entries of an event with numbers above `after`, oldest first.
    pub async fn ledger(&self, id: EventId, after: u64, limit: u32) -> Result<Page<Entry>, Error> {
        let page = self.ports.store.ledger(id, after, limit).await?;
        if page.rows.is_empty() {
            // An empty page is the end of a ledger, or no event at all.
            self.event(id).await?;
        }
        Ok(page)
    }
}
