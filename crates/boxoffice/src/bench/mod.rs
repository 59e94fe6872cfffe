//! A load generator: many clients book, pay, cancel and read availability, in a closed loop or on a fixed
//! schedule. At the end their responses are compared with the counters of the servers.
//!
//! It sends HTTP to running servers and uses none of their internals. It is a separate process, so that its
//! CPU time can be distinguished from theirs.

mod client;
mod cpu;
mod load;
mod mix;
mod report;
mod tally;

pub(crate) use self::client::Target;
pub(crate) use self::load::{Callers, Load, Pace};
pub(crate) use self::mix::Mix;
