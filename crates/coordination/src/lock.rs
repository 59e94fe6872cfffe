//! The interface of locks, and [`with_lock`], which runs a section under a lock.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::limit::{LOCK_LEASE_DEFAULT, LOCK_WAIT_DEFAULT, LOCK_WAITERS_DEFAULT};
use crate::{Key, Unavailable};

/// A lock with one owner per key and a queue in front of it.
///
/// Every implementation guarantees:
///
/// - **Order.** Callers acquire a key in the order in which they were queued. A release *hands it over* to
///   the first caller that still waits; a caller that arrives at that moment queues behind.
/// - **Bounds.** No caller waits longer than [`LockOptions::wait`], no queue is longer than
///   [`LockOptions::queue_max`], and no caller owns a key for longer than [`LockOptions::max_lease`].
/// - **Drop safety.** Dropping a call at any await leaves no queue entry, and no key owned for longer than a
///   lease.
/// - **No residue.** A key without an owner and without waiters takes no memory.
/// - **Tokens.** The token of a guard is greater than those of all earlier guards of its key.
///
/// The lock is not reentrant: see [`with_lock`]. It is exclusive only as long as it is not lost, so a section
/// must be correct even if another one runs concurrently: by a transaction, or by fencing with
/// [`LockGuard::token`] (Kleppmann, "How to do distributed locking", 2016).
#[async_trait]
pub trait Lock: Send + Sync {
    /// Waits in the key's queue. The caller owns the key until the guard is dropped or lost.
    ///
    /// - [`LockError::WouldDeadlock`], at once, inside a [`with_lock`] section of the same key.
    /// - [`LockError::QueueFull`], at once, if the queue is at its bound.
    /// - [`LockError::Timeout`] after [`LockOptions::wait`]; with a wait of zero, at once if the key is
    ///   taken.
    /// - [`LockError::Unavailable`] if the shared state is unavailable.
    ///
    /// A caller that has a guard outside [`with_lock`] and acquires its key again waits for itself, until
    /// [`LockOptions::wait`] has passed or the first guard is lost.
    async fn acquire(&self, key: &Key, options: LockOptions) -> Result<LockGuard, LockError>;

    /// Acquires each key that has no owner and no waiters. Never waits.
    ///
    /// The results are in the order of `keys`, one each: `None` for a key that is taken, also by an earlier
    /// element of the same list. The caller bounds the length of the list. Only [`LockOptions::max_lease`] is
    /// used. With [`LockError::Unavailable`] the whole call fails, and no key is owned.
    async fn try_acquire_each(
        &self,
        keys: &[Key],
        options: LockOptions,
    ) -> Result<Vec<Option<LockGuard>>, LockError>;

    /// [`Lock::try_acquire_each`] for one key.
    async fn try_acquire(&self, key: &Key, options: LockOptions) -> Result<Option<LockGuard>, LockError> {
        let guards = self.try_acquire_each(std::slice::from_ref(key), options).await?;
        Ok(guards.into_iter().next().flatten())
    }
}

/// Bounds on the wait for a key, on its queue and on its ownership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockOptions {
    /// Longest wait in the queue; zero tries once. Default 250 ms, because a user is waiting for the
    /// response.
    pub wait: Duration,
    /// Longest ownership, counted from the grant; then the guard is lost and the key goes to the next waiter.
    /// It only bounds how long a section that hangs blocks other callers, so the default is long: 10 s. With
    /// zero the guard is lost at once. A lock on a server also has a shorter lease, which it renews until
    /// this time.
    pub max_lease: Duration,
    /// Longest queue that this caller may join, counted with the caller and without the owner; zero never
    /// queues. Default 1,000.
    pub queue_max: usize,
}

impl Default for LockOptions {
    fn default() -> Self {
        Self { wait: LOCK_WAIT_DEFAULT, max_lease: LOCK_LEASE_DEFAULT, queue_max: LOCK_WAITERS_DEFAULT }
    }
}

/// The error of an acquisition, or of a section under a lock.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LockError {
    /// The caller is inside a [`with_lock`] section of the same key and would wait for itself.
    #[error("the caller already owns the lock")]
    WouldDeadlock,
    /// The wait timed out.
    #[error("the wait for the lock timed out at queue position {position}")]
    Timeout {
        /// Position in the queue on joining it, from 1.
        position: usize,
    },
    /// The queue is full.
    #[error("the queue of the lock is full; position {position} exceeds its bound")]
    QueueFull {
        /// The position that the caller would have had, from 1.
        position: usize,
    },
    /// The guard was lost before the section ended, and the section was dropped.
    #[error("the lock was lost before the section finished")]
    Lost,
    /// The shared state is unavailable.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Ownership of a key. Dropping it hands the key over to the next waiter; the drop itself does not wait.
pub struct LockGuard {
    key: Key,
    token: u64,
    backend: Box<dyn GuardBackend>,
}

/// An implementation's part of a [`LockGuard`]. Dropping it must release the key if it is still owned, and
/// must not block.
#[async_trait]
pub trait GuardBackend: Send + Sync {
    /// See [`LockGuard::is_lost`].
    fn is_lost(&self) -> bool;
    /// See [`LockGuard::lost`].
    async fn lost(&self);
    /// See [`LockGuard::contended`].
    fn contended(&self) -> bool;
}

impl LockGuard {
    /// For implementations of [`Lock`]: a guard of `key`.
    pub fn new(key: Key, token: u64, backend: impl GuardBackend + 'static) -> Self {
        Self { key, token, backend: Box::new(backend) }
    }

    /// The owned key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The fencing token: the time of the grant in microseconds since the Unix epoch, or one more than the
    /// previous token if the clock is not later than that. A resource without transactions can reject
    /// requests with a lower token than it has seen.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// True if ownership has ended without a release: by [`LockOptions::max_lease`], or because a lease could
    /// not be renewed. Once true, it stays true.
    pub fn is_lost(&self) -> bool {
        self.backend.is_lost()
    }

    /// Returns once [`LockGuard::is_lost`] is true. May be called and dropped any number of times.
    pub async fn lost(&self) {
        self.backend.lost().await;
    }

    /// True if another caller waits for the key, or already owns it. A hint, which may be outdated. An owner
    /// with more work can keep the key as long as this is false.
    pub fn contended(&self) -> bool {
        self.backend.contended()
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("key", &self.key)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

tokio::task_local! {
    /// Keys of the [`with_lock`] sections around the running code, outermost first. A task id is not
    /// sufficient: one task may run many sections concurrently, each in its own future.
    static HELD: Vec<Key>;
}

/// Runs `section` while owning `key`.
///
/// Errors are those of [`Lock::acquire`], and [`LockError::Lost`] if the guard is lost before the section
/// ends. The section is then dropped at its next await, and requests that it had sent may or may not take
/// effect. Work that must not be interrupted acquires a [`LockGuard`] and checks [`LockGuard::is_lost`]
/// itself. In every case, also when this call is dropped, the section's future is dropped *before* the key is
/// released.
///
/// Inside the section, acquiring the same key again returns [`LockError::WouldDeadlock`] at once, for any
/// lock and at any depth. A task that the section spawns is not inside it.
pub async fn with_lock<T>(
    lock: &dyn Lock,
    key: &Key,
    options: LockOptions,
    section: impl AsyncFnOnce(&LockGuard) -> T,
) -> Result<T, LockError> {
    let guard = lock.acquire(key, options).await?;
    if guard.is_lost() {
        return Err(LockError::Lost);
    }
    let mut held = HELD.try_with(Clone::clone).unwrap_or_default();
    held.push(key.clone());
    HELD.scope(held, async {
        tokio::select! {
            // If both are ready, the result takes precedence over the error.
            biased;
            result = section(&guard) => Ok(result),
            () = guard.lost() => Err(LockError::Lost),
        }
    })
    .await
}

/// Returns [`LockError::WouldDeadlock`] inside a [`with_lock`] section of `key`. The implementations of
/// [`Lock`] call it first in [`Lock::acquire`].
pub(crate) fn check_not_held(key: &Key) -> Result<(), LockError> {
    match HELD.try_with(|held| held.contains(key)) {
        Ok(true) => Err(LockError::WouldDeadlock),
        Ok(false) | Err(_) => Ok(()),
    }
}
