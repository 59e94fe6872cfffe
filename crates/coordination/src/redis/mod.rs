//! Both primitives across processes, on a Redis server (6.2 or later, or Valkey).
//!
//! The server only orders and refuses early. It may be slow, away, empty again or a replica that lags: then a
//! limit starts at zero, two may own one key, and callers are told [`Unavailable`](crate::Unavailable) within
//! [`RedisOptions::answer_timeout`], or at once while the breaker is open. Nothing that was asked for stays
//! owned beyond a lease.
//!
//! One process keeps one connection for questions and one that only listens. Three tasks serve them, owned by
//! [`Redis`]: one keeps the connection, one listens, one does all that concerns locks.
//!
//! The server has to be dedicated to this and must not evict keys (`maxmemory-policy noeviction`). All keys of
//! one script share a hash tag, but there is no cluster client here: one primary, with replicas or without.

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
#[cfg_attr(
    not(feature = "conformance"),
    expect(unreachable_pub, reason = "public only where the suites of other crates rewrite them")
)]
mod scripts;

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::redis::{Client, TlsCertificates};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use supervisor::{Supervisor, Task};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use actor::{Actor, Timing, Worker};
use connection::Link;
use counters::Counters;
use limiter::RedisLimiter;
use lock::{Command, RedisLock};

pub use counters::Counts;
pub use deny_cache::DenyCache;
pub use fallback::{Fallback, OnDown};
pub use inspect::Inspection;
#[cfg(feature = "conformance")]
pub use scripts::Scripts;
#[cfg(not(feature = "conformance"))]
use scripts::Scripts;

use crate::{Clock, Limiter, Lock};

/// Longest name of an instance in bytes.
const INSTANCE_LEN_MAX: usize = 64;

/// Where the server is, and how long things may take.
#[derive(Clone)]
pub struct RedisOptions {
    client: Client,
    instance: String,
    scripts: Scripts,
    /// How long a key stays owned by a process that is not heard of, and how long its callers stay in queues.
    /// Renewed at a third. Default 2 s; at least 100 ms.
    pub lease: Duration,
    /// How long a key that was handed over waits for its new owner to be heard of. Default 500 ms; from 50 ms
    /// to a lease.
    pub claim: Duration,
    /// Longest wait for an answer. Default 100 ms: a person waits behind it.
    pub reply_timeout: Duration,
    /// Longest wait for a connection. Default 500 ms.
    pub connect_timeout: Duration,
}

/// Why there can be no [`RedisOptions`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum InvalidOptions {
    /// The address is none.
    #[error("a Redis address reads redis://[user:password@]host[:port][/database], or rediss:// for TLS")]
    Address,
    /// The name is empty, too long or holds a character outside its set.
    #[error("the name of an instance is 1 to 64 characters of A-Z, a-z, 0-9, _ and -")]
    Instance,
    /// There is no certificate in the text, or one that cannot be read, or the address asks for no TLS.
    #[error("no certificates of authorities in PEM, or the address does not begin with rediss://")]
    Authorities,
}

impl RedisOptions {
    /// A server by its address, `redis://…` or `rediss://…` (TLS), and the name of this instance: 1 to 64
    /// characters of `A–Z a–z 0–9 _ -` that no other process uses, now or within a lease.
    pub fn new(address: &str, instance: &str) -> Result<Self, InvalidOptions> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        if !(1..=INSTANCE_LEN_MAX).contains(&instance.len()) || !instance.bytes().all(fits) {
            return Err(InvalidOptions::Instance);
        }
        Ok(Self {
            client: Client::open(address).map_err(|_| InvalidOptions::Address)?,
            instance: instance.to_owned(),
            scripts: Scripts::default(),
            lease: Duration::from_secs(2),
            claim: Duration::from_millis(500),
            reply_timeout: Duration::from_millis(100),
            connect_timeout: Duration::from_millis(500),
        })
    }

    /// Checks the server's certificate with these authorities (PEM) instead of the system's. The address has to
    /// be `rediss://…`.
    pub fn with_authorities(mut self, authorities: &[u8]) -> Result<Self, InvalidOptions> {
        if CertificateDer::pem_slice_iter(authorities).next().is_none() {
            return Err(InvalidOptions::Authorities);
        }
        let info = self.client.get_connection_info().clone();
        let tls = TlsCertificates { client_tls: None, root_cert: Some(authorities.to_vec()) };
        self.client = Client::build_with_tls(info, tls).map_err(|_| InvalidOptions::Authorities)?;
        Ok(self)
    }

    /// Other scripts, for tests.
    #[cfg(feature = "conformance")]
    #[must_use]
    pub fn with_scripts(self, scripts: Scripts) -> Self {
        Self { scripts, ..self }
    }
}

impl fmt::Debug for RedisOptions {
    /// Without the address, in which there may be a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions").field("instance", &self.instance).finish_non_exhaustive()
    }
}

/// A server, with everything of this process that speaks to it. Dropping it stops that at once; what is owned
/// then ends with its lease. [`Redis::close`] gives it back first.
pub struct Redis {
    link: Arc<Link>,
    lock: Arc<RedisLock>,
    limiter: Arc<DenyCache>,
    commands: mpsc::UnboundedSender<Command>,
    close_within: Duration,
    supervisor: Supervisor,
    actor: Mutex<JoinSet<()>>,
    _helpers: JoinSet<()>,
}

impl Redis {
    /// Starts to connect, in tasks of the runtime this is called in. It works before there is a connection,
    /// as it does when the connection is lost.
    pub fn start(options: RedisOptions) -> Self {
        let counters = Arc::new(Counters::default());
        let link = Arc::new(Link::new(&options, counters));
        let lease = options.lease.max(Duration::from_millis(100));
        let timing = Timing {
            lease,
            claim: options.claim.clamp(Duration::from_millis(50), lease),
            answer_timeout: options.reply_timeout,
        };
        let (commands, asked) = mpsc::unbounded_channel();
        let (heard, rung) = mpsc::unbounded_channel();
        let (mut actor, mut helpers) = (JoinSet::new(), JoinSet::new());
        let supervisor = Supervisor::default();
        let (task, keeper) = (supervisor.task("redis-connection"), Arc::clone(&link));
        helpers.spawn(async move { task.run(&mut || keeper.keep()).await });
        let (task, listener, instance) =
            (supervisor.task("redis-subscriber"), Arc::clone(&link), options.instance.clone());
        helpers.spawn(async move {
            task.run(&mut || notifications::listen(Arc::clone(&listener), instance.clone(), heard.clone()))
                .await;
        });
        let task = supervisor.task("redis-locks");
        let locks = Actor::new(Arc::clone(&link), timing, options.instance, commands.clone());
        actor.spawn(async move { task.run(&mut Worker { actor: locks, asked, rung }).await });
        Self {
            lock: Arc::new(RedisLock {
                link: Arc::clone(&link),
                commands: commands.clone(),
                numbers: AtomicU64::new(1),
            }),
            limiter: Arc::new(DenyCache::new(Arc::new(RedisLimiter(Arc::clone(&link))))),
            link,
            commands,
            close_within: options.reply_timeout * 4,
            supervisor,
            actor: Mutex::new(actor),
            _helpers: helpers,
        }
    }

    /// The background tasks, each with its health.
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        self.supervisor.tasks()
    }

    /// The lock.
    pub fn lock(&self) -> Arc<dyn Lock> {
        self.lock.clone()
    }

    /// The limiter, with a memory for refusals. [`Unavailable`](crate::Unavailable) while the server is away.
    pub fn limiter(&self) -> Arc<dyn Limiter> {
        self.limiter.clone()
    }

    /// The limiter with an answer for the time in which the server is away.
    pub fn limiter_with_fallback(&self, on_down: OnDown, clock: Arc<dyn Clock>) -> Fallback {
        Fallback::new(self.limiter(), on_down, clock)
    }

    /// The limiter without a memory: every attempt asks the server, whose clock may then step.
    #[cfg(feature = "conformance")]
    pub fn uncached_limiter(&self) -> Arc<dyn Limiter> {
        Arc::new(RedisLimiter(Arc::clone(&self.link)))
    }

    /// Whether the server is asked at all: the breaker is closed.
    pub fn is_up(&self) -> bool {
        self.link.is_up()
    }

    /// Returns once the server can be asked.
    pub async fn wait_until_up(&self) {
        self.link.up().await;
    }

    /// Returns once the server is not asked any more.
    pub async fn wait_until_down(&self) {
        self.link.down().await;
    }

    /// Why the latest attempt to connect failed, where one has since the server was last reached. Holds no
    /// password.
    pub fn last_connect_error(&self) -> Option<String> {
        self.link.why_down()
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        Counts { attempts_denied_locally: self.limiter.refused_count(), ..self.link.counters.read() }
    }

    /// Ends all tenures and waits, gives back what is owned, if the server can be asked, and stops.
    pub async fn close(&self) {
        let _ = self.commands.send(Command::Close);
        let mut actor = std::mem::take(&mut *self.actor.lock().unwrap_or_else(PoisonError::into_inner));
        // Whatever is not given back in time ends with its lease.
        let _ = timeout(self.close_within, actor.join_next()).await;
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
