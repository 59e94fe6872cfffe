//! The doors of one simulated process: the real things behind them, and what goes wrong on the way.

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

/// What one process has of the world.
#[derive(Clone)]
pub(crate) struct ProcessContext {
    pub(crate) world: Arc<World>,
    pub(crate) life: Process,
    /// By how much the clock of its machine is off, in microseconds.
    pub(crate) skew: Arc<AtomicI64>,
    pub(crate) number: usize,
}

impl ProcessContext {
    /// What the process waits for at a door, and whether it is alive behind it.
    pub(crate) async fn delay(&self, fault: Fault) {
        self.life.step().await;
        if self.world.should_inject(fault) {
            sleep(self.world.moment(Duration::from_secs(2))).await;
            self.life.step().await;
        }
    }

    /// The process dies here, and its caller hears nothing.
    pub(crate) async fn die<T>(&self) -> T {
        self.world.note(format_args!("instance {} dies", self.number));
        self.life.kill();
        std::future::pending().await
    }
}

/// The clock of the machine.
pub(crate) struct MachineClock(pub(crate) ProcessContext);

impl domain::Clock for MachineClock {
    fn now(&self) -> Timestamp {
        self.0.world.now_skewed(self.0.skew.load(Ordering::Relaxed))
    }
}

/// Luck from the seed.
pub(crate) struct SeededIds(pub(crate) Arc<World>);

impl domain::Ids for SeededIds {
    fn random(&self) -> [u8; 10] {
        self.0.random_bytes()
    }
}

/// Longest time that a dead process keeps a key. Nobody renews leases here, so a living one loses it then, too.
const LEASE: Duration = Duration::from_secs(15);

/// A way to the lock that all share.
pub(crate) struct FaultyLock {
    pub(crate) place: ProcessContext,
    pub(crate) shared: Arc<LocalLock>,
}

fn unavailable() -> Unavailable {
    Unavailable::new(std::io::Error::other("injected"))
}

impl FaultyLock {
    fn own(&self, tenure: LockGuard) -> LockGuard {
        let (key, token) = (tenure.key().clone(), tenure.token());
        let lost = AtomicBool::new(self.place.world.should_inject(Fault::LockLost));
        LockGuard::new(key, token, FaultyLockGuard { place: self.place.clone(), tenure: Some(tenure), lost })
    }

    /// A tenure of a key that somebody else may own: what a lock that forgets gives out.
    fn false_guard(&self, key: &Key) -> LockGuard {
        let lost = AtomicBool::new(false);
        LockGuard::new(key.clone(), 0, FaultyLockGuard { place: self.place.clone(), tenure: None, lost })
    }
}

#[async_trait]
impl Lock for FaultyLock {
    async fn acquire(&self, key: &Key, options: LockOptions) -> Result<LockGuard, LockError> {
        self.place.delay(Fault::LockSlow).await;
        let world = &self.place.world;
        if world.should_inject(Fault::LockAway) {
            return Err(unavailable().into());
        }
        if world.should_inject(Fault::LockTwice) {
            return Ok(self.false_guard(key));
        }
        if world.should_inject(Fault::LockRefused) {
            return Err(LockError::QueueFull { position: options.queue_max });
        }
        let options = LockOptions { max_lease: options.max_lease.min(LEASE), ..options };
        let tenure = self.shared.acquire(key, options).await;
        world.note(format_args!("lock {key} of {}: {}", self.place.number, tenure.is_ok()));
        world.saw(if tenure.is_ok() { "lock: granted" } else { "lock: not granted" });
        // A grant that reaches a process which has died meanwhile is lost with it until its lease ends.
        match tenure {
            Ok(tenure) if self.place.life.is_dead() => {
                world.leak(tenure);
                std::future::pending().await
            }
            Ok(tenure) => Ok(self.own(tenure)),
            Err(error) => Err(error),
        }
    }

    async fn try_acquire_each(
        &self,
        keys: &[Key],
        options: LockOptions,
    ) -> Result<Vec<Option<LockGuard>>, LockError> {
        self.place.delay(Fault::LockSlow).await;
        let world = &self.place.world;
        if world.should_inject(Fault::LockAway) {
            return Err(unavailable().into());
        }
        if world.should_inject(Fault::LockTwice) {
            return Ok(keys.iter().map(|key| Some(self.false_guard(key))).collect());
        }
        if world.should_inject(Fault::LockRefused) {
            return Ok(keys.iter().map(|_| None).collect());
        }
        let tenures = self.shared.try_acquire_each(keys, options).await?;
        if tenures.iter().any(Option::is_none) {
            world.saw("sweeper: leaves a busy booking alone");
        }
        Ok(tenures.into_iter().map(|tenure| tenure.map(|tenure| self.own(tenure))).collect())
    }
}

struct FaultyLockGuard {
    place: ProcessContext,
    /// Unset where the key was never really owned.
    tenure: Option<LockGuard>,
    lost: AtomicBool,
}

#[async_trait]
impl GuardBackend for FaultyLockGuard {
    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed) || self.tenure.as_ref().is_some_and(LockGuard::is_lost)
    }

    async fn lost(&self) {
        match &self.tenure {
            _ if self.is_lost() => {}
            Some(tenure) => tenure.lost().await,
            None => std::future::pending().await,
        }
        // A process that stands still learns of it when it goes on.
        self.place.life.step().await;
    }

    fn contended(&self) -> bool {
        self.tenure.as_ref().is_some_and(LockGuard::contended)
    }
}

impl Drop for FaultyLockGuard {
    fn drop(&mut self) {
        if let Some(tenure) = self.tenure.take()
            && self.place.life.is_dead()
        {
            self.place.world.leak(tenure);
        }
    }
}

/// The limiter that all share; it may forget.
pub(crate) struct SharedLimiter {
    world: Arc<World>,
    counting: Mutex<Arc<LocalLimiter>>,
}

impl SharedLimiter {
    pub(crate) fn new(world: Arc<World>) -> Self {
        let counting = Arc::new(LocalLimiter::new(Arc::new(CommonClock(world.clone()))));
        Self { world, counting: Mutex::new(counting) }
    }

    fn counting(&self) -> Arc<LocalLimiter> {
        self.counting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn forget(&self) {
        let fresh = Arc::new(LocalLimiter::new(Arc::new(CommonClock(self.world.clone()))));
        *self.counting.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
    }
}

/// A way to it.
pub(crate) struct FaultyLimiter {
    pub(crate) place: ProcessContext,
    pub(crate) shared: Arc<SharedLimiter>,
}

#[async_trait]
impl Limiter for FaultyLimiter {
    async fn attempt(&self, rule: Rule, key: &Key) -> Result<LimitDecision, Unavailable> {
        self.place.delay(Fault::LimiterSlow).await;
        if self.place.world.should_inject(Fault::LimiterAway) {
            return Err(unavailable());
        }
        if self.place.world.should_inject(Fault::LimiterForgets) {
            self.shared.forget();
        }
        let counting = self.shared.counting();
        let verdict = counting.attempt(rule, key).await?;
        self.place.world.saw(if verdict.allowed { "limiter: lets through" } else { "limiter: refuses" });
        Ok(verdict)
    }
}

/// Hears of what has grown, and tells the relay, where there is one.
pub(crate) struct FaultyCommitListener {
    pub(crate) place: ProcessContext,
    pub(crate) relay: Option<Arc<Relay>>,
}

impl CommitListener for FaultyCommitListener {
    fn ledgers_advanced(&self, events: &[EventId]) {
        if self.place.life.is_dead() || self.place.world.should_inject(Fault::HintLost) {
            return;
        }
        self.place.world.note(format_args!("grown: {}", events.len()));
        if let Some(relay) = &self.relay {
            relay.ledgers_advanced(events);
        }
    }
}
