//! The port for the time of day.

/// The wall clock.
///
/// Used for fencing tokens and rate limits, which must stay comparable after a restart and in another
/// process. It may step backwards; [`Limiter`](crate::Limiter) and
/// [`LockGuard::token`](crate::LockGuard::token) document the effect. Waits and lock deadlines use the
/// monotonic clock of `tokio::time` instead.
pub trait Clock: Send + Sync {
    /// Microseconds since the Unix epoch, about 1.8e15 today.
    fn unix_micros(&self) -> u64;
}

/// A function is a clock, so that a test needs no type for one.
impl<F: Fn() -> u64 + Send + Sync> Clock for F {
    fn unix_micros(&self) -> u64 {
        self()
    }
}
