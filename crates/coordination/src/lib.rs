//! Two primitives that keep a crowd in order before it reaches a database: a FIFO [`Lock`] and an exact
//! sliding-window [`Limiter`].
//!
//! Both are traits used as `Arc<dyn …>`; [`local`] holds the implementations for one process, [`redis`] those
//! across processes, and the `conformance` feature the suites that every implementation has to pass unchanged.
//!
//! The crate orders and refuses early, it guards no invariant: whoever uses it must stay correct when a lock
//! is lost or a limiter forgets. It knows nothing of what its keys stand for and reads time only through
//! [`Clock`] (waits use `tokio::time`, which a test can hold still). It spawns tasks in [`redis`] only, where
//! they belong to a handle that ends them.
//!
//! ```
//! # use coordination::{AllowAll, Clock, Key, Limiter, LockOptions, Rule, local::LocalLock, with_lock};
//! # struct FixedClock;
//! # impl Clock for FixedClock {
//! #     fn unix_micros(&self) -> u64 {
//! #         43_200_000_000
//! #     }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (clock, limiter) = (std::sync::Arc::new(FixedClock), AllowAll);
//! let verdict = limiter.attempt(Rule::parse("create", "5/10s")?, &Key::new("user", "ada")?).await?;
//! assert!(verdict.allowed);
//!
//! let (lock, key) = (LocalLock::new(clock), Key::new("event", "evt_1")?);
//! let token = with_lock(&lock, &key, LockOptions::default(), async |tenure| tenure.token()).await?;
//! # assert_eq!(token, 43_200_000_000);
//! # Ok(())
//! # }
//! ```

mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod key;
mod limiter;
pub mod local;
mod lock;
pub mod redis;
mod rule;
mod unavailable;

pub use clock::Clock;
pub use key::{InvalidKey, Key};
pub use limiter::{AllowAll, LimitDecision, Limiter};
pub use lock::{GuardBackend, Lock, LockError, LockGuard, LockOptions, check_not_held, with_lock};
pub use rule::{InvalidRule, Rule};
pub use unavailable::Unavailable;
