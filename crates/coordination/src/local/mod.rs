//! Both primitives for one process: exact, in memory, and gone with it.
//!
//! For a single instance they are all that is needed; among several, each instance counts and orders only its
//! own callers.

mod limiter;
mod lock;

pub use limiter::LocalLimiter;
pub use lock::{Footprint, LocalLock};
