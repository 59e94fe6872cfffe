//! Conformance suites for [`Lock`](crate::Lock) and [`Limiter`](crate::Limiter): tests of their guarantees
//! over the traits.
//!
//! An implementation provides a harness, which constructs it and inspects its state, and runs every case on a
//! new harness. A case panics if the implementation violates the guarantee. Cases wait by `tokio::time` only,
//! so they take no real time under a paused clock, and also work, more slowly, in real time.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Clock, Key};

pub mod limiter;
pub mod lock;

/// A test of one guarantee.
pub struct Case<R: ?Sized> {
    /// The guarantee, as an identifier.
    pub name: &'static str,
    run: for<'a> fn(&'a R) -> Pin<Box<dyn Future<Output = ()> + 'a>>,
}

impl<R: ?Sized> Case<R> {
    /// Tests the implementation behind `harness`, which no other case has used. Panics if the guarantee is
    /// violated.
    pub async fn run(&self, harness: &R) {
        (self.run)(harness).await;
    }
}

impl<R: ?Sized> fmt::Debug for Case<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Case").field(&self.name).finish()
    }
}

/// The table of a suite's cases. A case missing from it is dead code, which the compiler reports.
macro_rules! cases {
    ($harness:ty: $($name:ident),+ $(,)?) => {
        /// All cases of the suite.
        pub const CASES: &[$crate::conformance::Case<$harness>] =
            &[$($crate::conformance::Case {
                name: stringify!($name),
                run: |harness| Box::pin($name(harness)),
            }),+];
    };
}
use cases;

/// A [`Clock`] that only moves when it is set.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// The initial time: an instant in January 2027, in microseconds since the Unix epoch.
    pub const START: u64 = 1_800_000_000_000_000;

    /// A clock at [`ManualClock::START`].
    pub fn new() -> Self {
        Self(AtomicU64::new(Self::START))
    }

    /// Sets the time, in microseconds since the Unix epoch; also to an earlier one.
    pub fn set(&self, unix_micros: u64) {
        self.0.store(unix_micros, Ordering::SeqCst);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn unix_micros(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

fn key(scope: &str, number: impl fmt::Display) -> Key {
    Key::new(scope, &number.to_string()).expect("the suites use valid keys")
}
