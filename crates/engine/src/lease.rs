//! Leases of events: the desks of several instances take turns at an event instead of contending for its row.
//!
//! A lease is the lock `event:{id}`. The desk that holds it executes the commands that have accumulated for
//! the event, in one commit, while the desks of other instances wait for the lease instead of waiting inside
//! the database with a transaction open. The lock queues its callers, so the lease goes to the desk that has
//! waited longest.
//!
//! Leases are only an optimization. The database row lock and the conditional writes protect every
//! transaction, with or without a lease; a lease that is missing, lost or granted twice costs order and
//! waiting time, never correctness. Therefore no batch is aborted because its lease was lost, and a request
//! for a lease waits at most [`LEASE_WAIT_MAX`].
//!
//! # States
//!
//! Each event with commands in the queue or in a batch in flight is in one of these states:
//!
//! ```text
//!                           first command_queued
//!                                    │
//!                                    ▼
//!              next_grant      ┌───────────┐   next_grant
//!            ┌─── no lease ────│ Requested │──── granted ─────┐
//!            ▼                 └───────────┘                  ▼
//!       ┌─────────┐                  ▲                    ┌──────┐
//!       │ Refused │── commands wait ─┴── commands wait, ──│ Held │──┐ commands wait, and
//!       └────┬────┘                     lease lost,       │      │◀─┘ none of these
//!            │                          contended or      └──┬───┘
//!            │                          kept too long        │
//!            │                                               │
//!            └───────────── no command waits ────────────────┴──▶ no entry, lease released
//! ```
//!
//! The transitions from `Refused` and `Held` happen in `batch_finished`. In addition, `may_run` requests a
//! lost lease again.
//!
//! # Calls
//!
//! The desk calls, in this order:
//!
//! - `command_queued` when it receives a command. The first command of an event requests the lease, also
//!   while another batch runs.
//! - `next_grant` while it waits. It completes one request: the lease is granted, or refused because the lock
//!   returned an error or did not respond within [`LEASE_WAIT_MAX`].
//! - `may_run` for each command that it is about to take: true if the event's lease is held or refused. A
//!   lost lease is requested again, and the command stays in the queue. The desk does not look at commands
//!   whose lease is known to be requested (`is_requested`).
//! - `command_taken` for each command that it takes. The lease is held until the end of the batch.
//! - `batch_finished` with the events of the batch. A lease is kept while commands of its event wait, no
//!   other desk is known to wait for it, and it is not older than [`LEASE_KEEP_MAX`]. Otherwise it is
//!   released, which hands it over to the next desk, before it is requested again behind the others.
//!
//! # Failures
//!
//! - The lock service is unavailable or does not respond: the request counts as refused, and the next batch
//!   runs without the lease. The request is repeated for the batch after it.
//! - A lease is lost, because it could not be renewed or was held for [`LEASE_DURATION_MAX`]: the batch in
//!   flight continues, and the commands that are still queued wait until the lease is granted again or
//!   refused.
//! - The desk panics: `clear` drops all leases and requests, and the desk requests those that it needs.
//! - There is no other desk on the database: the lock is `None`, there are no entries, and every command may
//!   run.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use coordination::{Key, Lock, LockGuard, LockOptions};
use domain::EventId;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout};

use crate::limit::{LEASE_DURATION_MAX, LEASE_KEEP_MAX, LEASE_WAIT_MAX};

/// The leases of one desk.
pub(crate) struct Leases {
    /// `None` if no other desk can work on the same events: then every command may run.
    lock: Option<Arc<dyn Lock>>,
    events: HashMap<EventId, LeasedEvent>,
    requests: FuturesUnordered<BoxFuture<'static, (EventId, Option<LockGuard>)>>,
}

/// An event with queued commands, or with commands in the batch in flight.
struct LeasedEvent {
    waiting: usize,
    lease: LeaseState,
}

enum LeaseState {
    Requested,
    Held {
        guard: LockGuard,
        since: Instant,
    },
    /// The request failed: the next batch runs without the lease.
    Refused,
}

impl Leases {
    pub(crate) fn new(lock: Option<Arc<dyn Lock>>) -> Self {
        Self { lock, events: HashMap::new(), requests: FuturesUnordered::new() }
    }

    /// Removes all events and releases all leases.
    pub(crate) fn clear(&mut self) {
        self.events.clear();
        self.requests.clear();
    }

    /// True if leases are used.
    pub(crate) fn enabled(&self) -> bool {
        self.lock.is_some()
    }

    /// Counts one more queued command of this event. Returns true if a batch may take it.
    pub(crate) fn command_queued(&mut self, id: EventId) -> bool {
        if let Some(event) = self.events.get_mut(&id) {
            event.waiting += 1;
            return !matches!(event.lease, LeaseState::Requested);
        }
        if self.lock.is_some() {
            self.request(id, 1);
        }
        self.lock.is_none()
    }

    /// Counts one queued command less of this event. Its lease is held until [`Leases::batch_finished`].
    pub(crate) fn command_taken(&mut self, id: EventId) {
        if let Some(event) = self.events.get_mut(&id) {
            event.waiting = event.waiting.saturating_sub(1);
        }
    }

    /// True if a batch may take commands of this event. A lost lease is requested again.
    pub(crate) fn may_run(&mut self, id: EventId) -> bool {
        match self.events.get(&id) {
            None | Some(LeasedEvent { lease: LeaseState::Refused, .. }) => true,
            Some(LeasedEvent { lease: LeaseState::Requested, .. }) => false,
            Some(LeasedEvent { lease: LeaseState::Held { guard, .. }, .. }) if !guard.is_lost() => true,
            Some(LeasedEvent { waiting, .. }) => {
                let waiting = *waiting;
                self.events.remove(&id);
                self.request(id, waiting);
                false
            }
        }
    }

    /// True if commands of this event run without its lease although leases are used.
    pub(crate) fn runs_without_lease(&self, id: EventId) -> bool {
        matches!(self.events.get(&id), Some(LeasedEvent { lease: LeaseState::Refused, .. }))
    }

    /// True while a request for the lease of this event waits, so that no batch may take its commands.
    pub(crate) fn is_requested(&self, id: EventId) -> bool {
        matches!(self.events.get(&id), Some(LeasedEvent { lease: LeaseState::Requested, .. }))
    }

    /// Returns the event whose request is granted or refused next; `None`, immediately, if there is no
    /// request. Cancel safe.
    pub(crate) async fn next_grant(&mut self) -> Option<EventId> {
        let (id, guard) = self.requests.next().await?;
        if let Some(event) = self.events.get_mut(&id)
            && matches!(event.lease, LeaseState::Requested)
        {
            event.lease = match guard {
                Some(guard) => LeaseState::Held { guard, since: Instant::now() },
                None => LeaseState::Refused,
            };
        }
        Some(id)
    }

    /// Ends a batch with commands of these events. Leases that are not needed here, or for which another desk
    /// waits, are released; if commands still wait, the lease is requested again, behind the other desks.
    pub(crate) fn batch_finished(&mut self, ids: &BTreeSet<EventId>) {
        for &id in ids {
            let Some(event) = self.events.remove(&id) else { continue };
            if event.waiting > 0 && event.lease.should_keep() {
                self.events.insert(id, event);
                continue;
            }
            let LeasedEvent { waiting, lease } = event;
            // Released before it is requested again, so that a waiting desk gets it first.
            drop(lease);
            if waiting > 0 {
                self.request(id, waiting);
            }
        }
    }

    fn request(&mut self, id: EventId, waiting: usize) {
        let Some(lock) = self.lock.clone() else { return };
        self.events.insert(id, LeasedEvent { waiting, lease: LeaseState::Requested });
        self.requests.push(Box::pin(async move {
            let options =
                LockOptions { wait: LEASE_WAIT_MAX, max_lease: LEASE_DURATION_MAX, ..LockOptions::default() };
            let Ok(key) = Key::new("event", &id.to_string()) else { return (id, None) };
            // The timeout bounds the wait even if the lock does not respect its option.
            let guard = timeout(LEASE_WAIT_MAX, lock.acquire(&key, options)).await;
            (id, guard.ok().and_then(Result::ok))
        }));
    }
}

impl LeaseState {
    /// True if the desk keeps the lease for the next batch.
    fn should_keep(&self) -> bool {
        match self {
            Self::Held { guard, since } => {
                !guard.is_lost() && !guard.contended() && since.elapsed() < LEASE_KEEP_MAX
            }
            // Lost while the batch was assembled, and requested again.
            Self::Requested => true,
            Self::Refused => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;
    use coordination::LockError;
    use coordination::local::LocalLock;

    use super::*;

    /// A lock that never responds.
    struct UnresponsiveLock;

    #[async_trait]
    impl Lock for UnresponsiveLock {
        async fn acquire(&self, _key: &Key, _options: LockOptions) -> Result<LockGuard, LockError> {
            std::future::pending().await
        }

        async fn try_acquire_each(
            &self,
            _keys: &[Key],
            _options: LockOptions,
        ) -> Result<Vec<Option<LockGuard>>, LockError> {
            std::future::pending().await
        }
    }

    fn desks() -> [Leases; 3] {
        let lock: Arc<dyn Lock> = Arc::new(LocalLock::new(Arc::new(|| 43_200_000_000)));
        [(); 3].map(|()| Leases::new(Some(lock.clone())))
    }

    fn event(number: u8) -> EventId {
        EventId::new(domain::Timestamp::from_micros(0).unwrap(), [number; 10])
    }

    fn all(events: &[EventId]) -> BTreeSet<EventId> {
        events.iter().copied().collect()
    }

    /// Starts a batch that takes every queued command of an event.
    fn begin(desk: &mut Leases, event: EventId) {
        assert!(desk.may_run(event));
        while desk.events[&event].waiting > 0 {
            desk.command_taken(event);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_single_desk_needs_no_leases() {
        let mut desk = Leases::new(None);
        assert!(
            desk.command_queued(event(1)) && desk.may_run(event(1)) && !desk.runs_without_lease(event(1))
        );
        assert!(desk.next_grant().await.is_none());
        desk.command_taken(event(1));
        desk.batch_finished(&all(&[event(1)]));
        assert!(desk.events.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_kept_while_commands_wait_and_released_when_idle() {
        let [mut one, mut two, _] = desks();
        assert!(!one.command_queued(event(1)), "the lease is not granted yet");
        assert!(!one.may_run(event(1)));
        one.next_grant().await.unwrap();
        begin(&mut one, event(1));
        assert!(one.command_queued(event(1)), "the lease is held");
        one.batch_finished(&all(&[event(1)]));
        assert!(one.may_run(event(1)), "kept without a request");
        begin(&mut one, event(1));
        one.batch_finished(&all(&[event(1)]));
        assert!(one.events.is_empty());
        two.command_queued(event(1));
        let start = Instant::now();
        two.next_grant().await.unwrap();
        assert!(
            !two.runs_without_lease(event(1)) && start.elapsed().is_zero(),
            "the first desk has released it"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn desks_that_all_have_commands_take_turns() {
        let mut desks = desks();
        for desk in &mut desks {
            desk.command_queued(event(1));
            // Joins the queue of the lock.
            assert!(
                timeout(Duration::from_millis(1), desk.next_grant()).await.is_ok() == desk.may_run(event(1))
            );
        }
        for turn in 0..9 {
            let now = turn % 3;
            let next = (turn + 1) % 3;
            begin(&mut desks[now], event(1));
            desks[now].command_queued(event(1));
            desks[now].batch_finished(&all(&[event(1)]));
            assert!(!desks[now].may_run(event(1)), "released although commands wait");
            // Requested again, behind the other desks.
            assert!(timeout(Duration::from_millis(1), desks[now].next_grant()).await.is_err());
            desks[next].next_grant().await.unwrap();
            assert!(!desks[next].runs_without_lease(event(1)), "granted in order");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn commands_wait_at_most_the_bound_and_only_for_their_own_event() {
        let [mut one, mut two, _] = desks();
        let mut unresponsive = Leases::new(Some(Arc::new(UnresponsiveLock)));
        one.command_queued(event(1));
        one.next_grant().await.unwrap();
        for desk in [&mut two, &mut unresponsive] {
            let start = Instant::now();
            desk.command_queued(event(1));
            desk.command_queued(event(1));
            assert!(!desk.may_run(event(1)));
            desk.next_grant().await.unwrap();
            assert_eq!(start.elapsed().as_millis(), LEASE_WAIT_MAX.as_millis());
            assert!(desk.may_run(event(1)) && desk.runs_without_lease(event(1)), "runs without the lease");
            begin(desk, event(1));
            desk.command_queued(event(1));
            desk.batch_finished(&all(&[event(1)]));
            assert!(!desk.may_run(event(1)), "only for one batch");
        }
        two.command_queued(event(2));
        two.next_grant().await.unwrap();
        assert!(two.may_run(event(2)) && !two.may_run(event(1)), "the lease of the other event is free");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_lease_ends_with_its_batch() {
        let [mut one, mut two, _] = desks();
        one.command_queued(event(1));
        one.next_grant().await.unwrap();
        begin(&mut one, event(1));
        tokio::time::advance(LEASE_DURATION_MAX).await;
        one.command_queued(event(1));
        two.command_queued(event(1));
        two.next_grant().await.unwrap();
        assert!(two.may_run(event(1)) && !two.runs_without_lease(event(1)), "the other desk has the lease");
        one.batch_finished(&all(&[event(1)]));
        assert!(!one.may_run(event(1)), "the next batch does not start");
        // The same if the lease is lost between two batches.
        let [mut one, ..] = desks();
        one.command_queued(event(1));
        one.next_grant().await.unwrap();
        tokio::time::advance(LEASE_DURATION_MAX).await;
        assert!(!one.may_run(event(1)));
        one.next_grant().await.unwrap();
        assert!(one.may_run(event(1)), "requested again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_was_kept_for_long_is_requested_again() {
        let [mut one, ..] = desks();
        one.command_queued(event(1));
        one.next_grant().await.unwrap();
        begin(&mut one, event(1));
        tokio::time::advance(LEASE_KEEP_MAX).await;
        one.command_queued(event(1));
        one.batch_finished(&all(&[event(1)]));
        assert!(!one.may_run(event(1)));
    }
}
