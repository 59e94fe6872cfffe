//! The lock as its users see it, and the form of it that runs a section.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::{Key, Unavailable};

/// A lock with one owner per key and a queue in front of it.
///
/// Every implementation keeps:
///
/// - **Order.** Callers get a key in the order in which they were queued. Release *hands it over* to the
///   first caller still waiting: whoever comes at that moment queues behind.
/// - **Bounds.** Nobody waits longer than [`LockOptions::wait`], no queue is longer than
///   [`LockOptions::queue_max`], nobody owns a key for longer than [`LockOptions::max_hold`].
/// - **Drop safety.** Dropping a caller at any await leaves no queue entry and nothing owned for longer than
///   a lease.
/// - **No residue.** A key that is neither owned nor wanted is not remembered.
/// - **Tokens.** The token of a tenure is greater than those of all earlier tenures of its key.
///
/// The lock is not reentrant: see [`with_lock`]. It excludes others only as long as it is not lost, so a
/// section must stay correct beside a second one: by a transaction, or by fencing with [`Tenure::token`]
/// (Kleppmann, "How to do distributed locking", 2016).
#[async_trait]
pub trait Lock: Send + Sync {
    /// Waits in the key's queue and owns the key until the tenure is dropped or lost.
    ///
    /// - [`LockError::WouldDeadlock`], at once, inside a [`with_lock`] section of the same key.
    /// - [`LockError::QueueFull`], at once, if the queue is at its bound.
    /// - [`LockError::Timeout`] after [`LockOptions::wait`]; with a wait of zero, at once if the key is
    ///   taken.
    /// - [`LockError::Unavailable`] if the shared state could not be asked.
    ///
    /// A caller who holds a tenure outside [`with_lock`] and asks for its key again waits for itself, until
    /// [`LockOptions::wait`] or the first tenure's end.
    async fn acquire(&self, key: &Key, options: LockOptions) -> Result<LockGuard, LockError>;

    /// Takes each key that nobody owns or waits for, and never waits.
    ///
    /// The answers are in the order of `keys`, one each: `None` for a key that was taken, including one that
    /// stands earlier in the same list. The caller bounds the list. Only [`LockOptions::max_hold`] is used.
    /// Fails as a whole, and then owns nothing, with [`LockError::Unavailable`].
    async fn try_acquire_each(
        &self,
        keys: &[Key],
        options: LockOptions,
    ) -> Result<Vec<Option<LockGuard>>, LockError>;

    /// [`Lock::try_acquire_each`] of one key.
    async fn try_acquire(&self, key: &Key, options: LockOptions) -> Result<Option<LockGuard>, LockError> {
        let tenures = self.try_acquire_each(std::slice::from_ref(key), options).await?;
        Ok(tenures.into_iter().next().flatten())
    }
}

/// How long a caller may wait for a key and own it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockOptions {
    /// Longest wait in the queue; zero asks once. Default 250 ms: a person is waiting for the answer.
    pub wait: Duration,
    /// Longest tenure, counted from the grant; then it is lost and the key goes to the next. It bounds what a
    /// section that hangs can block, so it is generous. Default 10 s; zero makes a tenure that is lost at
    /// once.
    pub max_lease: Duration,
    /// Most callers waiting for the key when this one joins them, beyond the owner; zero refuses to queue.
    /// Default 1,000.
    pub queue_max: usize,
}

impl Default for LockOptions {
    fn default() -> Self {
        Self { wait: Duration::from_millis(250), max_lease: Duration::from_secs(10), queue_max: 1_000 }
    }
}

/// Why a key was not given, or a section not finished.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LockError {
    /// The caller runs inside a [`with_lock`] section of this very key and would wait for itself.
    #[error("the key is already held by the caller")]
    WouldDeadlock,
    /// The wait is over.
    #[error("the key was not free in time; place {position} in its queue")]
    Timeout {
        /// Place in the queue on joining it, from 1.
        position: usize,
    },
    /// Too many are waiting already.
    #[error("too many are waiting for the key; place {position} is beyond the bound")]
    QueueFull {
        /// The place there would have been, from 1.
        position: usize,
    },
    /// The tenure ended before the section did, and the section was dropped.
    #[error("the key was lost before the section was finished")]
    Lost,
    /// The shared state could not be asked.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// The time in which a caller owns a key. Dropping it hands the key to the next in the queue, without
/// waiting.
pub struct LockGuard {
    key: Key,
    token: u64,
    hold: Box<dyn GuardBackend>,
}

/// An implementation's side of a [`Tenure`]. Dropping it must release the key if it is still owned, and must
/// neither block nor wait.
#[async_trait]
pub trait GuardBackend: Send + Sync {
    /// See [`Tenure::is_lost`].
    fn is_lost(&self) -> bool;
    /// See [`Tenure::lost`].
    async fn lost(&self);
    /// See [`Tenure::contended`].
    fn contended(&self) -> bool;
}

impl LockGuard {
    /// For implementations of [`Lock`]: the tenure of `key` that `hold` stands for.
    pub fn new(key: Key, token: u64, hold: impl GuardBackend + 'static) -> Self {
        Self { key, token, hold: Box::new(hold) }
    }

    /// The key that is owned.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The fencing token: the time of the grant in microseconds since the Unix epoch, or one more than the
    /// token before if the clock has not moved past that. A resource without transactions can refuse whoever
    /// comes with a lower token than it has seen.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Whether the tenure has ended by itself: by [`LockOptions::max_hold`], or because a lease could not be
    /// renewed. Once true, always true.
    pub fn is_lost(&self) -> bool {
        self.hold.is_lost()
    }

    /// Returns once [`Tenure::is_lost`]; may be called and dropped any number of times.
    pub async fn lost(&self) {
        self.hold.lost().await;
    }

    /// Whether somebody else is waiting for the key, or owns it by now. A hint: it may change at once. An
    /// owner with more to do can stay as long as this is false.
    pub fn contended(&self) -> bool {
        self.hold.contended()
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenure").field("key", &self.key).field("token", &self.token).finish_non_exhaustive()
    }
}

tokio::task_local! {
    /// Keys of the [`with_lock`] sections around the running code, outermost first. A task id would not do:
    /// one task may run many sections side by side, each in a future of its own.
    static HELD: Vec<Key>;
}

/// Runs `section` while owning `key`.
///
/// Errors are those of [`Lock::acquire`], and [`LockError::Lost`] if the tenure is lost first: the section is
/// then dropped at its next await, and what it had sent elsewhere may or may not have happened. Work that
/// must not be stopped half-way takes a [`Tenure`] and looks at [`Tenure::is_lost`] itself. In every case,
/// also when this call is dropped, the section's future is dropped *before* the key is released.
///
/// Inside the section, asking for the same key again is answered with [`LockError::WouldDeadlock`] at once,
/// by whatever lock and however deep. A task spawned by the section is not inside it.
pub async fn with_lock<T>(
    lock: &dyn Lock,
    key: &Key,
    options: LockOptions,
    section: impl AsyncFnOnce(&LockGuard) -> T,
) -> Result<T, LockError> {
    let tenure = lock.acquire(key, options).await?;
    if tenure.is_lost() {
        return Err(LockError::Lost);
    }
    let mut held = HELD.try_with(Clone::clone).unwrap_or_default();
    held.push(key.clone());
    HELD.scope(held, async {
        tokio::select! {
            // An answer is worth more than the news that it came late.
            biased;
            answer = section(&tenure) => Ok(answer),
            () = tenure.lost() => Err(LockError::Lost),
        }
    })
    .await
}

/// For implementations of [`Lock`], which call this first in [`Lock::acquire`]: [`LockError::WouldDeadlock`]
/// inside a [`with_lock`] section of `key`.
pub fn check_not_held(key: &Key) -> Result<(), LockError> {
    match HELD.try_with(|held| held.contains(key)) {
        Ok(true) => Err(LockError::WouldDeadlock),
        Ok(false) | Err(_) => Ok(()),
    }
}
