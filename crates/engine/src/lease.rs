//! Leases of events: the desks of several instances take turns at an event instead of meeting at its row.
//!
//! A desk that has commands of an event asks for `event:{id}` and lets them wait until it is granted, or refused, or
//! [`LEASE_WAIT_MAX`] has passed; they never wait for it longer, and nobody else's wait for theirs. A lease that is
//! granted is kept for as long as there is more to do and no other desk waits for it. Without one the same happens:
//! the database alone decides, only with more waiting there.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use coordination::{Key, Lock, LockGuard, LockOptions};
use domain::EventId;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout};

use crate::limit::{LEASE_DURATION_MAX, LEASE_KEPT_MAX, LEASE_WAIT_MAX};

/// The leases of one desk.
pub(crate) struct Leases {
    /// Unset where no other desk can want the same event: then every event may run.
    lock: Option<Arc<dyn Lock>>,
    events: HashMap<EventId, LeasedEvent>,
    requests: FuturesUnordered<BoxFuture<'static, (EventId, Option<LockGuard>)>>,
}

/// An event that has commands waiting, or in the batch under way.
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
    /// Asked for in vain: the next batch goes without.
    Refused,
}

impl Leases {
    pub(crate) fn new(lock: Option<Arc<dyn Lock>>) -> Self {
        Self { lock, events: HashMap::new(), requests: FuturesUnordered::new() }
    }

    /// Forgets all events; leases that are held end.
    pub(crate) fn clear(&mut self) {
        self.events.clear();
        self.requests.clear();
    }

    /// Whether there are leases at all.
    pub(crate) fn enabled(&self) -> bool {
        self.lock.is_some()
    }

    /// One more command of this event waits. Whether a batch may take it.
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

    /// One command of this event waits no more. Its lease stays until [`Leases::finished`].
    pub(crate) fn command_taken(&mut self, id: EventId) {
        if let Some(event) = self.events.get_mut(&id) {
            event.waiting = event.waiting.saturating_sub(1);
        }
    }

    /// Whether a batch may begin with commands of this event. A lease that was lost is asked for anew.
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

    /// Whether a batch goes without the lease of this event, where there are leases.
    pub(crate) fn runs_without_lease(&self, id: EventId) -> bool {
        matches!(self.events.get(&id), Some(LeasedEvent { lease: LeaseState::Refused, .. }))
    }

    /// Returns once it is next_grant for one more event whether it has its lease; `None`, at once, if none is asked
    /// for. May be dropped and called again.
    pub(crate) async fn next_grant(&mut self) -> Option<()> {
        let (id, guard) = self.requests.next().await?;
        if let Some(event) = self.events.get_mut(&id)
            && matches!(event.lease, LeaseState::Requested)
        {
            event.lease = match guard {
                Some(guard) => LeaseState::Held { guard, since: Instant::now() },
                None => LeaseState::Refused,
            };
        }
        Some(())
    }

    /// A batch with commands of these events is over. What nobody here needs, and what another desk waits for, is
    /// handed on; where commands still wait it is asked for anew, behind the others.
    pub(crate) fn batch_finished(&mut self, ids: &BTreeSet<EventId>) {
        for &id in ids {
            let Some(event) = self.events.remove(&id) else { continue };
            if event.waiting > 0 && event.lease.should_keep() {
                self.events.insert(id, event);
                continue;
            }
            let LeasedEvent { waiting, lease } = event;
            // Before it is asked for, so that whoever waits comes first.
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
            // A lock that breaks its word does not make anybody wait longer.
            let guard = timeout(LEASE_WAIT_MAX, lock.acquire(&key, options)).await;
            (id, guard.ok().and_then(Result::ok))
        }));
    }
}

impl LeaseState {
    /// Whether the desk keeps it for the next batch.
    fn should_keep(&self) -> bool {
        match self {
            Self::Held { guard, since } => {
                !guard.is_lost() && !guard.contended() && since.elapsed() < LEASE_KEPT_MAX
            }
            // Lost while the batch was put together, and asked for anew.
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

    struct FixedClock;

    impl coordination::Clock for FixedClock {
        fn unix_micros(&self) -> u64 {
            43_200_000_000
        }
    }

    /// A lock that never answers.
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
        let lock: Arc<dyn Lock> = Arc::new(LocalLock::new(Arc::new(FixedClock)));
        [(); 3].map(|()| Leases::new(Some(lock.clone())))
    }

    fn event(number: u8) -> EventId {
        EventId::new(domain::Timestamp::from_micros(0).unwrap(), [number; 10])
    }

    fn all(events: &[EventId]) -> BTreeSet<EventId> {
        events.iter().copied().collect()
    }

    /// A batch that takes every command of an event begins.
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
        assert!(!one.command_queued(event(1)), "not before it is asked for");
        assert!(!one.may_run(event(1)));
        one.next_grant().await.unwrap();
        begin(&mut one, event(1));
        assert!(one.command_queued(event(1)), "it has its lease");
        one.batch_finished(&all(&[event(1)]));
        assert!(one.may_run(event(1)), "kept, without asking");
        begin(&mut one, event(1));
        one.batch_finished(&all(&[event(1)]));
        assert!(one.events.is_empty());
        two.command_queued(event(1));
        let began = Instant::now();
        two.next_grant().await.unwrap();
        assert!(!two.runs_without_lease(event(1)) && began.elapsed().is_zero(), "the first has given it up");
    }

    #[tokio::test(start_paused = true)]
    async fn desks_that_all_have_commands_take_turns() {
        let mut desks = desks();
        for desk in &mut desks {
            desk.command_queued(event(1));
            // Joins the queue.
            assert!(
                timeout(Duration::from_millis(1), desk.next_grant()).await.is_ok() == desk.may_run(event(1))
            );
        }
        for turn in 0..9 {
            let (now, next) = (turn % 3, (turn + 1) % 3);
            begin(&mut desks[now], event(1));
            desks[now].command_queued(event(1));
            desks[now].batch_finished(&all(&[event(1)]));
            assert!(!desks[now].may_run(event(1)), "handed on, although there is more to do");
            // Asked for again, behind the others.
            assert!(timeout(Duration::from_millis(1), desks[now].next_grant()).await.is_err());
            desks[next].next_grant().await.unwrap();
            assert!(!desks[next].runs_without_lease(event(1)), "in order");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn commands_wait_at_most_the_bound_and_only_for_their_own_event() {
        let [mut one, mut two, _] = desks();
        let mut deaf = Leases::new(Some(Arc::new(UnresponsiveLock)));
        one.command_queued(event(1));
        one.next_grant().await.unwrap();
        for desk in [&mut two, &mut deaf] {
            let began = Instant::now();
            desk.command_queued(event(1));
            desk.command_queued(event(1));
            assert!(!desk.may_run(event(1)));
            desk.next_grant().await.unwrap();
            assert_eq!(began.elapsed().as_millis(), LEASE_WAIT_MAX.as_millis());
            assert!(desk.may_run(event(1)) && desk.runs_without_lease(event(1)), "without it");
            begin(desk, event(1));
            desk.command_queued(event(1));
            desk.batch_finished(&all(&[event(1)]));
            assert!(!desk.may_run(event(1)), "for one batch");
        }
        two.command_queued(event(2));
        two.next_grant().await.unwrap();
        assert!(two.may_run(event(2)) && !two.may_run(event(1)), "its own is free");
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
        assert!(two.may_run(event(1)) && !two.runs_without_lease(event(1)), "the other has it");
        one.batch_finished(&all(&[event(1)]));
        assert!(!one.may_run(event(1)), "the next batch is not begun");
        // The same where it is lost between two batches.
        let [mut one, ..] = desks();
        one.command_queued(event(1));
        one.next_grant().await.unwrap();
        tokio::time::advance(LEASE_DURATION_MAX).await;
        assert!(!one.may_run(event(1)));
        one.next_grant().await.unwrap();
        assert!(one.may_run(event(1)), "asked for anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_was_kept_for_long_is_requested_again() {
        let [mut one, ..] = desks();
        one.command_queued(event(1));
        one.next_grant().await.unwrap();
        begin(&mut one, event(1));
        tokio::time::advance(LEASE_KEPT_MAX).await;
        one.command_queued(event(1));
        one.batch_finished(&all(&[event(1)]));
        assert!(!one.may_run(event(1)));
    }
}
