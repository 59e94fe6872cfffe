//! Two primitives that order and limit concurrent callers before they reach a database: a FIFO [`Lock`] and
//! an exact sliding-window rate [`Limiter`].
//!
//! Both are traits, used as `Arc<dyn …>`. [`local`] has the implementations for one process, [`redis`] those
//! across processes, and the `conformance` feature has the suites that every implementation must pass
//! unchanged.
//!
//! The crate orders callers and refuses them early; it protects no invariant. Its users must stay correct
//! when a lock is lost or a limiter loses its state. It does not know what its keys stand for, and reads time
//! only through [`Clock`] (waits use `tokio::time`, which a test can pause). It spawns tasks in [`redis`]
//! only, where a handle owns and ends them.
//!
//! ```
//! # use coordination::{AllowAll, Key, Limiter, LockOptions, Rule, local::LocalLock, with_lock};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let clock = std::sync::Arc::new(|| 43_200_000_000);
//! # let limiter = AllowAll;
//! let decision = limiter.attempt(Rule::parse("create", "5/10s")?, &Key::new("user", "ada")?).await?;
//! assert!(decision.allowed);
//!
//! let lock = LocalLock::new(clock);
//! let key = Key::new("event", "evt_1")?;
//! let token = with_lock(&lock, &key, LockOptions::default(), async |guard| guard.token()).await?;
//! # assert_eq!(token, 43_200_000_000);
//! # Ok(())
//! # }
//! ```

mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod key;
mod limit;
mod limiter;
pub mod local;
mod lock;
pub mod redis;
mod rule;
mod unavailable;

pub use clock::Clock;
pub use key::{InvalidKey, Key};
pub use limiter::{AllowAll, LimitDecision, Limiter};
pub use lock::{GuardBackend, Lock, LockError, LockGuard, LockOptions, with_lock};
pub use rule::{InvalidRule, Rule};
pub use unavailable::Unavailable;
