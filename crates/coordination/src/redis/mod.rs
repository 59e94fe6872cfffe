//! The lock and the limiter across processes, on a Redis server (6.2 or later, or Valkey).
//!
//! The server only puts callers in order and rejects them early. It may be slow, unavailable, empty after a
//! restart, or a lagging replica. Then a limit starts at zero, two callers may own one key, and calls fail
//! with [`Unavailable`](crate::Unavailable) within two [`RedisOptions::reply_timeout`]s, or at once while the
//! circuit breaker is open. A key stays owned for at most one lease after its owner has ended.
//!
//! A process has one connection for requests and one for a subscription. Three tasks use them, all owned by
//! [`Redis`]: one maintains the connection, one receives notifications, and one sends all lock commands (see
//! `actor.rs`).
//!
//! The server must be dedicated to this use and must not evict keys (`maxmemory-policy noeviction`). All keys
//! of one script share a hash tag, but there is no cluster client here: one primary, with or without
//! replicas.

mod actor;
mod batch;
mod connection;
mod counters;
mod deny_cache;
mod entry;
mod error;
mod fallback;
mod inspect;
mod keys;
mod limiter;
mod lock;
mod notifications;
mod options;
mod protocol;
mod reply;
#[cfg_attr(
    not(feature = "conformance"),
    expect(unreachable_pub, reason = "public only with `conformance`, for tests that rewrite the scripts")
)]
mod scripts;

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use supervisor::{Supervisor, Task};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use actor::{Actor, Worker};
use connection::Connection;
use counters::Counters;
use limiter::RedisLimiter;
use lock::{Command, RedisLock};
use protocol::Timing;

pub use counters::Counts;
pub use deny_cache::DenyCache;
pub use fallback::{Fallback, OnDown};
pub use inspect::Inspection;
pub use options::{InvalidOptions, RedisOptions};
#[cfg(feature = "conformance")]
pub use scripts::Scripts;

use crate::limit::{CLAIM_MIN, LEASE_MIN};
use crate::{Clock, Limiter, Lock};

/// A handle to a server, and the owner of all tasks and connections of this process to it. Dropping it stops
/// them at once, and owned keys expire with their leases; [`Redis::close`] releases them first.
pub struct Redis {
    connection: Arc<Connection>,
    lock: Arc<RedisLock>,
    limiter: Arc<DenyCache>,
    commands: mpsc::UnboundedSender<Command>,
    close_timeout: Duration,
    supervisor: Supervisor,
    actor: Mutex<JoinSet<()>>,
    _connection_tasks: JoinSet<()>,
}

impl Redis {
    /// Starts the tasks in the current runtime, and the first attempt to connect. Before the first connection
    /// it behaves as after a lost one.
    pub fn start(options: RedisOptions) -> Self {
        let counters = Arc::new(Counters::default());
        let connection = Arc::new(Connection::new(&options, counters));
        let lease = options.lease.max(LEASE_MIN);
        let timing = Timing {
            lease,
            claim: options.claim.clamp(CLAIM_MIN, lease),
            reply_timeout: options.reply_timeout,
        };
        let (commands, receiver) = mpsc::unbounded_channel();
        let (sender, notifications) = mpsc::unbounded_channel();
        let (mut actor, mut connection_tasks) = (JoinSet::new(), JoinSet::new());
        let supervisor = Supervisor::default();
        let task = supervisor.task("redis-connection");
        let maintained = Arc::clone(&connection);
        connection_tasks.spawn(async move { task.run(&mut || maintained.maintain()).await });
        let task = supervisor.task("redis-subscriber");
        let subscriber = Arc::clone(&connection);
        let instance = options.instance.clone();
        connection_tasks.spawn(async move {
            let mut receive =
                || notifications::receive(Arc::clone(&subscriber), instance.clone(), sender.clone());
            task.run(&mut receive).await;
        });
        let task = supervisor.task("redis-locks");
        let lock_actor = Actor::new(Arc::clone(&connection), timing, options.instance, commands.clone());
        let mut worker = Worker { actor: lock_actor, commands: receiver, notifications };
        actor.spawn(async move { task.run(&mut worker).await });
        Self {
            lock: Arc::new(RedisLock {
                connection: Arc::clone(&connection),
                commands: commands.clone(),
                numbers: AtomicU64::new(1),
            }),
            limiter: Arc::new(DenyCache::new(Arc::new(RedisLimiter(Arc::clone(&connection))))),
            connection,
            commands,
            close_timeout: options.reply_timeout * 4,
            supervisor,
            actor: Mutex::new(actor),
            _connection_tasks: connection_tasks,
        }
    }

    /// The background tasks, each with its health.
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        self.supervisor.tasks()
    }

    /// The lock of this server.
    pub fn lock(&self) -> Arc<dyn Lock> {
        self.lock.clone()
    }

    /// The limiter with a [`DenyCache`]. Returns [`Unavailable`](crate::Unavailable) while the server is
    /// unavailable.
    pub fn limiter(&self) -> Arc<dyn Limiter> {
        self.limiter.clone()
    }

    /// [`Redis::limiter`] with a [`Fallback`] for the time in which the server is unavailable.
    pub fn limiter_with_fallback(&self, on_down: OnDown, clock: Arc<dyn Clock>) -> Fallback {
        Fallback::new(self.limiter(), on_down, clock)
    }

    /// The limiter without the cache: every attempt reaches the server, so a test may set the server's clock.
    #[cfg(feature = "conformance")]
    pub fn uncached_limiter(&self) -> Arc<dyn Limiter> {
        Arc::new(RedisLimiter(Arc::clone(&self.connection)))
    }

    /// True if the circuit breaker is closed, so that requests are sent.
    pub fn is_up(&self) -> bool {
        self.connection.is_up()
    }

    /// Returns once the breaker is closed.
    pub async fn wait_until_up(&self) {
        self.connection.wait_until_up().await;
    }

    /// Returns once the breaker is open.
    pub async fn wait_until_down(&self) {
        self.connection.wait_until_down().await;
    }

    /// The error of the latest attempt to connect; `None` if it succeeded. Contains no password.
    pub fn last_connect_error(&self) -> Option<String> {
        self.connection.last_connect_error()
    }

    /// Counts since the start.
    pub fn counts(&self) -> Counts {
        Counts { attempts_denied_locally: self.limiter.refused_count(), ..self.connection.counters.read() }
    }

    /// Ends all waits and all ownership, releases the keys on the server if it is available, and stops the
    /// lock task.
    pub async fn close(&self) {
        let _ = self.commands.send(Command::Close);
        let mut actor = std::mem::take(&mut *self.actor.lock().unwrap_or_else(PoisonError::into_inner));
        // Keys that are not released in time expire with their leases.
        let _ = timeout(self.close_timeout, actor.join_next()).await;
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("up", &self.is_up())
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}
