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

use crate::limit::{LEASE_HOLD_MAX, LEASE_KEPT_MAX, LEASE_WAIT_MAX};

/// The leases of one desk.
pub(crate) struct Leases {
    /// Unset where no other desk can want the same event: then every event may run.
    lock: Option<Arc<dyn Lock>>,
    events: HashMap<EventId, Event>,
    asked: FuturesUnordered<BoxFuture<'static, (EventId, Option<LockGuard>)>>,
}

/// An event that has commands waiting, or in the batch under way.
struct Event {
    waiting: usize,
    lease: Lease,
}

enum Lease {
    Asked,
    Held {
        tenure: LockGuard,
        since: Instant,
    },
    /// Asked for in vain: the next batch goes without.
    Refused,
}

impl Leases {
    pub(crate) fn new(lock: Option<Arc<dyn Lock>>) -> Self {
        Self { lock, events: HashMap::new(), asked: FuturesUnordered::new() }
    }

    /// Forgets all events; leases that are held end.
    pub(crate) fn clear(&mut self) {
        self.events.clear();
        self.asked.clear();
    }

    /// Whether there are leases at all.
    pub(crate) fn are_needed(&self) -> bool {
        self.lock.is_some()
    }

    /// One more command of this event waits. Whether a batch may take it.
    pub(crate) fn joined(&mut self, id: EventId) -> bool {
        if let Some(event) = self.events.get_mut(&id) {
            event.waiting += 1;
            return !matches!(event.lease, Lease::Asked);
        }
        if self.lock.is_some() {
            self.ask(id, 1);
        }
        self.lock.is_none()
    }

    /// One command of this event waits no more. Its lease stays until [`Leases::finished`].
    pub(crate) fn left(&mut self, id: EventId) {
        if let Some(event) = self.events.get_mut(&id) {
            event.waiting = event.waiting.saturating_sub(1);
        }
    }

    /// Whether a batch may begin with commands of this event. A lease that was lost is asked for anew.
    pub(crate) fn let_run(&mut self, id: EventId) -> bool {
        match self.events.get(&id) {
            None | Some(Event { lease: Lease::Refused, .. }) => true,
            Some(Event { lease: Lease::Asked, .. }) => false,
            Some(Event { lease: Lease::Held { tenure, .. }, .. }) if !tenure.is_lost() => true,
            Some(Event { waiting, .. }) => {
                let waiting = *waiting;
                self.events.remove(&id);
                self.ask(id, waiting);
                false
            }
        }
    }

    /// Whether a batch goes without the lease of this event, where there are leases.
    pub(crate) fn is_refused(&self, id: EventId) -> bool {
        matches!(self.events.get(&id), Some(Event { lease: Lease::Refused, .. }))
    }

    /// Returns once it is settled for one more event whether it has its lease; `None`, at once, if none is asked
    /// for. May be dropped and called again.
    pub(crate) async fn settled(&mut self) -> Option<()> {
        let (id, tenure) = self.asked.next().await?;
        if let Some(event) = self.events.get_mut(&id)
            && matches!(event.lease, Lease::Asked)
        {
            event.lease = match tenure {
                Some(tenure) => Lease::Held { tenure, since: Instant::now() },
                None => Lease::Refused,
            };
        }
        Some(())
    }

    /// A batch with commands of these events is over. What nobody here needs, and what another desk waits for, is
    /// handed on; where commands still wait it is asked for anew, behind the others.
    pub(crate) fn finished(&mut self, ids: &BTreeSet<EventId>) {
        for &id in ids {
            let Some(event) = self.events.remove(&id) else { continue };
            if event.waiting > 0 && event.lease.may_stay() {
                self.events.insert(id, event);
                continue;
            }
            let Event { waiting, lease } = event;
            // Before it is asked for, so that whoever waits comes first.
            drop(lease);
            if waiting > 0 {
                self.ask(id, waiting);
            }
        }
    }

    fn ask(&mut self, id: EventId, waiting: usize) {
        let Some(lock) = self.lock.clone() else { return };
        self.events.insert(id, Event { waiting, lease: Lease::Asked });
        self.asked.push(Box::pin(async move {
            let options =
                LockOptions { wait: LEASE_WAIT_MAX, max_lease: LEASE_HOLD_MAX, ..LockOptions::default() };
            let Ok(key) = Key::new("event", &id.to_string()) else { return (id, None) };
            // A lock that breaks its word does not make anybody wait longer.
            let tenure = timeout(LEASE_WAIT_MAX, lock.acquire(&key, options)).await;
            (id, tenure.ok().and_then(Result::ok))
        }));
    }
}

impl Lease {
    /// Whether the desk keeps it for the next batch.
    fn may_stay(&self) -> bool {
        match self {
            Self::Held { tenure, since } => {
                !tenure.is_lost() && !tenure.contended() && since.elapsed() < LEASE_KEPT_MAX
            }
            // Lost while the batch was put together, and asked for anew.
            Self::Asked => true,
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

    struct Noon;

    impl coordination::Clock for Noon {
        fn unix_micros(&self) -> u64 {
            43_200_000_000
        }
    }

    /// A lock that never answers.
    struct Silent;

    #[async_trait]
    impl Lock for Silent {
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
        let lock: Arc<dyn Lock> = Arc::new(LocalLock::new(Arc::new(Noon)));
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
        assert!(desk.let_run(event));
        while desk.events[&event].waiting > 0 {
            desk.left(event);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_desk_alone_asks_for_nothing() {
        let mut desk = Leases::new(None);
        assert!(desk.joined(event(1)) && desk.let_run(event(1)) && !desk.is_refused(event(1)));
        assert!(desk.settled().await.is_none());
        desk.left(event(1));
        desk.finished(&all(&[event(1)]));
        assert!(desk.events.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_kept_while_there_is_more_to_do_and_given_up_when_idle() {
        let [mut one, mut two, _] = desks();
        assert!(!one.joined(event(1)), "not before it is asked for");
        assert!(!one.let_run(event(1)));
        one.settled().await.unwrap();
        begin(&mut one, event(1));
        assert!(one.joined(event(1)), "it has its lease");
        one.finished(&all(&[event(1)]));
        assert!(one.let_run(event(1)), "kept, without asking");
        begin(&mut one, event(1));
        one.finished(&all(&[event(1)]));
        assert!(one.events.is_empty());
        two.joined(event(1));
        let began = Instant::now();
        two.settled().await.unwrap();
        assert!(!two.is_refused(event(1)) && began.elapsed().is_zero(), "the first has given it up");
    }

    #[tokio::test(start_paused = true)]
    async fn desks_that_all_have_more_to_do_take_turns() {
        let mut desks = desks();
        for desk in &mut desks {
            desk.joined(event(1));
            // Joins the queue.
            assert!(
                timeout(Duration::from_millis(1), desk.settled()).await.is_ok() == desk.let_run(event(1))
            );
        }
        for turn in 0..9 {
            let (now, next) = (turn % 3, (turn + 1) % 3);
            begin(&mut desks[now], event(1));
            desks[now].joined(event(1));
            desks[now].finished(&all(&[event(1)]));
            assert!(!desks[now].let_run(event(1)), "handed on, although there is more to do");
            // Asked for again, behind the others.
            assert!(timeout(Duration::from_millis(1), desks[now].settled()).await.is_err());
            desks[next].settled().await.unwrap();
            assert!(!desks[next].is_refused(event(1)), "in order");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_the_bound_nor_for_another_event() {
        let [mut one, mut two, _] = desks();
        let mut deaf = Leases::new(Some(Arc::new(Silent)));
        one.joined(event(1));
        one.settled().await.unwrap();
        for desk in [&mut two, &mut deaf] {
            let began = Instant::now();
            desk.joined(event(1));
            desk.joined(event(1));
            assert!(!desk.let_run(event(1)));
            desk.settled().await.unwrap();
            assert_eq!(began.elapsed().as_millis(), LEASE_WAIT_MAX.as_millis());
            assert!(desk.let_run(event(1)) && desk.is_refused(event(1)), "without it");
            begin(desk, event(1));
            desk.joined(event(1));
            desk.finished(&all(&[event(1)]));
            assert!(!desk.let_run(event(1)), "for one batch");
        }
        two.joined(event(2));
        two.settled().await.unwrap();
        assert!(two.let_run(event(2)) && !two.let_run(event(1)), "its own is free");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_lost_ends_with_its_batch() {
        let [mut one, mut two, _] = desks();
        one.joined(event(1));
        one.settled().await.unwrap();
        begin(&mut one, event(1));
        tokio::time::advance(LEASE_HOLD_MAX).await;
        one.joined(event(1));
        two.joined(event(1));
        two.settled().await.unwrap();
        assert!(two.let_run(event(1)) && !two.is_refused(event(1)), "the other has it");
        one.finished(&all(&[event(1)]));
        assert!(!one.let_run(event(1)), "the next batch is not begun");
        // The same where it is lost between two batches.
        let [mut one, ..] = desks();
        one.joined(event(1));
        one.settled().await.unwrap();
        tokio::time::advance(LEASE_HOLD_MAX).await;
        assert!(!one.let_run(event(1)));
        one.settled().await.unwrap();
        assert!(one.let_run(event(1)), "asked for anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_asked_for_anew_now_and_then() {
        let [mut one, ..] = desks();
        one.joined(event(1));
        one.settled().await.unwrap();
        begin(&mut one, event(1));
        tokio::time::advance(LEASE_KEPT_MAX).await;
        one.joined(event(1));
        one.finished(&all(&[event(1)]));
        assert!(!one.let_run(event(1)));
    }
}
