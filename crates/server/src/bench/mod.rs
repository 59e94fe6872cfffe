//! A load generator: many clients book, pay, give back and look, as fast as they are answered or on a fixed
//! schedule, and what they were told is compared with the counters afterwards.
//!
//! It speaks HTTP to running servers and knows nothing of how they are made. It is a process of its own, so
//! that the CPU it needs can be told from theirs.

mod client;
mod cpu;
mod load;
mod mix;
mod report;
mod tally;

pub(crate) use self::client::Target;
pub(crate) use self::load::{Callers, Load, Pace};
pub(crate) use self::mix::Mix;
