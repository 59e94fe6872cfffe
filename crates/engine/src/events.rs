//! The use cases of events.

use std::sync::Arc;

use domain::{Action, Currency, Entry, Event, EventId, EventPatch, EventStatus, NewEvent, Refusal};
use store::{Idempotency, Page, Stats};
use tokio::sync::watch;

use crate::{Caller, CommandOutput, Engine, Error, Reader};

impl Engine {
    /// Creates an event, on sale.
    pub async fn create_event(
        self: &Arc<Self>,
        caller: Caller,
        new: NewEvent,
        idempotency: Option<Arc<Idempotency>>,
    ) -> Result<CommandOutput, Error> {
        let engine = self.clone();
        self.run_detached(async move {
            engine.submit(caller, Action::CreateEvent(Box::new(new)), idempotency).await
        })
        .await
    }

    /// Edits, pauses, resumes or cancels an event.
    pub async fn update_event(
        self: &Arc<Self>,
        caller: Caller,
        event_id: EventId,
        patch: EventPatch,
    ) -> Result<CommandOutput, Error> {
        let engine = self.clone();
        self.run_detached(async move {
            let cancels = patch.status == Some(EventStatus::Cancelled);
            let action = Action::UpdateEvent { event_id, patch: Box::new(patch) };
            let output = engine.submit(caller, action, None).await?;
            if cancels {
                engine.wake_event_cancellation();
            }
            Ok(output)
        })
        .await
    }

    /// The event with this id, including every change that was acknowledged before the call.
    pub async fn event(&self, reader: &Reader, id: EventId) -> Result<Event, Error> {
        let event = self.read(reader, |store| async move { store.event(id).await }).await?;
        event.ok_or_else(|| Refusal::NotFound("event").into())
    }

    /// The currency of an event, for a command that contains an amount.
    pub async fn currency(&self, id: EventId) -> Result<Currency, Error> {
        let event = self.ports.store.event(id).await?;
        event.map(|event| event.details.currency).ok_or_else(|| Refusal::NotFound("event").into())
    }

    /// Up to `limit` events with ids below `after`, newest first.
    pub async fn events(
        &self,
        reader: &Reader,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Page<Event>, Error> {
        self.read(reader, |store| async move { store.events(after, limit).await }).await
    }

    /// The numbers of bookings in each status and the revenue, over all events.
    pub async fn stats(&self, reader: &Reader) -> Result<Stats, Error> {
        self.read(reader, |store| async move { store.stats().await }).await
    }

    /// Up to `limit` ledger entries of an event with numbers above `after`, oldest first.
    pub async fn ledger(
        &self,
        reader: &Reader,
        id: EventId,
        after: u64,
        limit: u32,
    ) -> Result<Page<Entry>, Error> {
        let page = self.read(reader, |store| async move {
            let page = store.ledger(id, after, limit).await?;
            // An empty page is the end of a ledger, unless the event does not exist.
            let exists = !page.rows.is_empty() || store.event(id).await?.is_some();
            Ok(exists.then_some(page))
        });
        page.await?.ok_or_else(|| Refusal::NotFound("event").into())
    }

    /// Subscribes to an event: the receiver has the current state, and changes within half a second of every
    /// commit.
    pub async fn watch(&self, reader: &Reader, id: EventId) -> Result<watch::Receiver<Arc<Event>>, Error> {
        if let Some(watching) = self.watched.subscribe(id) {
            return Ok(watching);
        }
        let event = Arc::new(self.event(reader, id).await?);
        Ok(self.watched.watch_event(event))
    }
}
