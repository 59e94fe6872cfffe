//! The lock and the limiter for one process: exact, in memory, and lost when the process ends.
//!
//! They are sufficient for a single instance. With several instances, each one limits and orders only its own
//! callers.

mod limiter;
mod lock;

pub use limiter::LocalLimiter;
pub use lock::{Footprint, LocalLock};
