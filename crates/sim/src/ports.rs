//! The ports of one simulated process, except for the store and NATS: real implementations with injected
//! faults.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use coordination::local::{LocalLimiter, LocalLock};
use coordination::{
    GuardBackend, Key, LimitDecision, Limiter, Lock, LockError, LockGuard, LockOptions, Rule, Unavailable,
};
use domain::{EventId, Timestamp};
use engine::CommitListener;
use engine::relay::Relay;
use tokio::time::sleep;

use crate::process::Process;
use crate::scenario::Fault;
use crate::world::{CommonClock, World};

/// The context of one simulated process.
#[derive(Clone)]
pub(crate) struct ProcessContext {
    pub(crate) world: Arc<World>,
    pub(crate) process: Process,
    /// Difference of its machine's clock from the database's clock, in microseconds.
    pub(crate) skew: Arc<AtomicI64>,
    pub(crate) number: usize,
}

impl ProcessContext {
    /// Waits until the process runs, and for a random delay if `fault` is injected. Never returns once the
    /// process is killed.
    pub(crate) async fn delay(&self, fault: Fault) {
        self.process.wait_until_running().await;
        if self.world.should_inject(fault) {
            sleep(self.world.random_duration(Duration::from_secs(2))).await;
            self.process.wait_until_running().await;
        }
    }

    /// Crashes the process. The call never returns.
    pub(crate) async fn crash<T>(&self) -> T {
        self.world.log(format_args!("instance {} crashes", self.number));
        self.process.kill();
        std::future::pending().await
    }
}

/// The clock of the machine that the process runs on.
pub(crate) struct MachineClock(pub(crate) ProcessContext);

impl domain::Clock for MachineClock {
    fn now(&self) -> Timestamp {
        self.0.world.now_skewed(self.0.skew.load(Ordering::Relaxed))
    }
}

/// Ids from the generator of the seed.
pub(crate) struct SeededIds(pub(crate) Arc<World>);

impl domain::Ids for SeededIds {
    fn random(&self) -> [u8; 10] {
        self.0.random_bytes()
    }
}

/// Longest time that a crashed process keeps a lock. Leases are not renewed here, so a running one loses it
/// then, too.
const LOCK_LEASE_MAX: Duration = Duration::from_secs(15);

/// The shared lock with injected faults.
pub(crate) struct FaultyLock {
    pub(crate) context: ProcessContext,
    pub(crate) shared: Arc<LocalLock>,
}

fn unavailable() -> Unavailable {
    Unavailable::new(std::io::Error::other("injected"))
}

impl FaultyLock {
    fn wrap(&self, guard: LockGuard) -> LockGuard {
        let key = guard.key().clone();
        let token = guard.token();
        let lost = AtomicBool::new(self.context.world.should_inject(Fault::LockLost));
        LockGuard::new(
            key,
            token,
            FaultyLockGuard { context: self.context.clone(), guard: Some(guard), lost },
        )
    }

    /// Returns a guard for a key that another process may own, as a lock that has lost its state grants it.
    fn false_guard(&self, key: &Key) -> LockGuard {
        let lost = AtomicBool::new(false);
        LockGuard::new(key.clone(), 0, FaultyLockGuard { context: self.context.clone(), guard: None, lost })
    }
}

#[async_trait]
impl Lock for FaultyLock {
    async fn acquire(&self, key: &Key, options: LockOptions) -> Result<LockGuard, LockError> {
        self.context.delay(Fault::LockSlow).await;
        let world = &self.context.world;
        if world.should_inject(Fault::LockUnavailable) {
            return Err(unavailable().into());
        }
        if world.should_inject(Fault::LockGrantedTwice) {
            return Ok(self.false_guard(key));
        }
        if world.should_inject(Fault::LockRefused) {
            return Err(LockError::QueueFull { position: options.queue_max });
        }
        let options = LockOptions { max_lease: options.max_lease.min(LOCK_LEASE_MAX), ..options };
        let guard = self.shared.acquire(key, options).await;
        world.log(format_args!("lock {key} of {}: {}", self.context.number, guard.is_ok()));
        world.record_coverage(if guard.is_ok() { "lock: granted" } else { "lock: not granted" });
        // A grant to a process that has crashed meanwhile stays taken until its lease expires.
        match guard {
            Ok(guard) if self.context.process.is_killed() => {
                world.leak(guard);
                std::future::pending().await
            }
            Ok(guard) => Ok(self.wrap(guard)),
            Err(error) => Err(error),
        }
    }

    async fn try_acquire_each(
        &self,
        keys: &[Key],
        options: LockOptions,
    ) -> Result<Vec<Option<LockGuard>>, LockError> {
        self.context.delay(Fault::LockSlow).await;
        let world = &self.context.world;
        if world.should_inject(Fault::LockUnavailable) {
            return Err(unavailable().into());
        }
        if world.should_inject(Fault::LockGrantedTwice) {
            return Ok(keys.iter().map(|key| Some(self.false_guard(key))).collect());
        }
        if world.should_inject(Fault::LockRefused) {
            return Ok(keys.iter().map(|_| None).collect());
        }
        let guards = self.shared.try_acquire_each(keys, options).await?;
        if guards.iter().any(Option::is_none) {
            world.record_coverage("sweeper: skipped a locked booking");
        }
        Ok(guards.into_iter().map(|guard| guard.map(|guard| self.wrap(guard))).collect())
    }
}

struct FaultyLockGuard {
    context: ProcessContext,
    /// `None` if the key is not really owned.
    guard: Option<LockGuard>,
    lost: AtomicBool,
}

#[async_trait]
impl GuardBackend for FaultyLockGuard {
    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed) || self.guard.as_ref().is_some_and(LockGuard::is_lost)
    }

    async fn lost(&self) {
        match &self.guard {
            _ if self.is_lost() => {}
            Some(guard) => guard.lost().await,
            None => std::future::pending().await,
        }
        // A paused process notices the loss when it resumes.
        self.context.process.wait_until_running().await;
    }

    fn contended(&self) -> bool {
        self.guard.as_ref().is_some_and(LockGuard::contended)
    }
}

impl Drop for FaultyLockGuard {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take()
            && self.context.process.is_killed()
        {
            self.context.world.leak(guard);
        }
    }
}

/// The limiter that all processes share. It can lose its state.
pub(crate) struct SharedLimiter {
    world: Arc<World>,
    current: Mutex<Arc<LocalLimiter>>,
}

impl SharedLimiter {
    pub(crate) fn new(world: Arc<World>) -> Self {
        let current = Arc::new(LocalLimiter::new(Arc::new(CommonClock(world.clone()))));
        Self { world, current: Mutex::new(current) }
    }

    fn current(&self) -> Arc<LocalLimiter> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn reset(&self) {
        let fresh = Arc::new(LocalLimiter::new(Arc::new(CommonClock(self.world.clone()))));
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
    }
}

/// The shared limiter with injected faults.
pub(crate) struct FaultyLimiter {
    pub(crate) context: ProcessContext,
    pub(crate) shared: Arc<SharedLimiter>,
}

#[async_trait]
impl Limiter for FaultyLimiter {
    async fn attempt(&self, rule: Rule, key: &Key) -> Result<LimitDecision, Unavailable> {
        self.context.delay(Fault::LimiterSlow).await;
        if self.context.world.should_inject(Fault::LimiterUnavailable) {
            return Err(unavailable());
        }
        if self.context.world.should_inject(Fault::LimiterStateLost) {
            self.shared.reset();
        }
        let current = self.shared.current();
        let decision = current.attempt(rule, key).await?;
        self.context.world.record_coverage(if decision.allowed {
            "limiter: allowed"
        } else {
            "limiter: denied"
        });
        Ok(decision)
    }
}

/// Forwards the events of a commit to the relay, if there is one. A wake-up may be lost.
pub(crate) struct FaultyCommitListener {
    pub(crate) context: ProcessContext,
    pub(crate) relay: Option<Arc<Relay>>,
}

impl CommitListener for FaultyCommitListener {
    fn ledgers_advanced(&self, events: &[EventId]) {
        if self.context.process.is_killed() || self.context.world.should_inject(Fault::WakeupLost) {
            return;
        }
        self.context.world.log(format_args!("ledgers advanced: {}", events.len()));
        if let Some(relay) = &self.relay {
            relay.ledgers_advanced(events);
        }
    }
}
