//! Live availability: subscribers of an event receive every change within half a second.
//!
//! One task polls the events that have subscribers, all in one read, so it sees the changes of all instances.
//! A slow subscriber gets the latest state and skips the states before it, so no messages accumulate.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use domain::{Event, EventId};
use store::{Cause, Store};
use supervisor::Work;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::limit::WATCH_EVERY;

/// The events that have subscribers.
#[derive(Default)]
pub(crate) struct WatchedEvents {
    events: Mutex<BTreeMap<EventId, watch::Sender<Arc<Event>>>>,
    /// Notified when an event gets its first subscriber.
    watch_started: Notify,
}

impl WatchedEvents {
    /// Subscribes to an event that has subscribers.
    pub(crate) fn subscribe(&self, id: EventId) -> Option<watch::Receiver<Arc<Event>>> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.get(&id).map(watch::Sender::subscribe)
    }

    /// Subscribes to an event, whose current state this is.
    pub(crate) fn watch_event(&self, event: Arc<Event>) -> watch::Receiver<Arc<Event>> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let watching = events.entry(event.id).or_insert_with(|| watch::Sender::new(event)).subscribe();
        self.watch_started.notify_one();
        watching
    }

    /// The ids of the events that have subscribers; the other events are removed.
    fn watched_ids(&self) -> Vec<EventId> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.retain(|_, watchers| watchers.receiver_count() > 0);
        events.keys().copied().collect()
    }

    fn notify(&self, events: Vec<Event>) {
        let watched = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            if let Some(watchers) = watched.get(&event.id) {
                watchers.send_if_modified(|known| {
                    let changed = known.inventory.seq != event.inventory.seq;
                    if changed {
                        *known = Arc::new(event);
                    }
                    changed
                });
            }
        }
    }
}

/// Polls the watched events until `stop`; idle without subscribers.
pub(crate) struct WatchPoller {
    watched: Arc<WatchedEvents>,
    store: Arc<dyn Store>,
    stop: CancellationToken,
    /// Watched events that cannot be decoded.
    unreadable: BTreeSet<EventId>,
}

impl WatchPoller {
    pub(crate) fn new(watched: Arc<WatchedEvents>, store: Arc<dyn Store>, stop: CancellationToken) -> Self {
        Self { watched, store, stop, unreadable: BTreeSet::new() }
    }

    /// The events that can be decoded. The others are logged once, not in every poll; their subscribers keep
    /// the last state.
    fn readable(&mut self, events: Vec<(EventId, Result<Event, Cause>)>) -> Vec<Event> {
        let mut readable = Vec::with_capacity(events.len());
        for (id, event) in events {
            match event {
                Ok(event) => {
                    self.unreadable.remove(&id);
                    readable.push(event);
                }
                Err(cause) => {
                    if self.unreadable.insert(id) {
                        tracing::error!(event = %id, %cause, "a watched event cannot be decoded");
                    }
                }
            }
        }
        readable
    }
}

impl Work for WatchPoller {
    async fn run(&mut self) {
        loop {
            let watched = self.watched.watched_ids();
            let wake = async {
                if watched.is_empty() {
                    self.watched.watch_started.notified().await;
                } else {
                    tokio::time::sleep(WATCH_EVERY).await;
                }
            };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = wake => (),
            }
            if watched.is_empty() {
                continue;
            }
            match self.store.events_by_ids(watched).await {
                Ok(events) => {
                    let events = self.readable(events);
                    self.watched.notify(events);
                }
                // Subscribers keep the last state, which contains its time.
                Err(error) => tracing::warn!(%error, "watched events cannot be read"),
            }
        }
    }
}
