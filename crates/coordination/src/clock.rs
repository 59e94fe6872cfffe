//! The door through which the time of day comes in.

/// The wall clock.
///
/// Used for fencing tokens and rate limits, which have to mean the same after a restart and in another
/// process. It may step backwards; both users say what they do then. Waits and lock deadlines never read it:
/// they use the monotonic clock of `tokio::time`.
pub trait Clock: Send + Sync {
    /// Microseconds since the Unix epoch, about 1.8e15 today.
    fn unix_micros(&self) -> u64;
}
