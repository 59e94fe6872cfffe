//! A load generator: many clients book, pay, cancel and read availability, in a closed loop or on a fixed
//! schedule. At the end their responses are compared with the counters of the servers.
//!
//! It sends HTTP to running servers and must not be able to use their internals, so it is a crate of its own
//! that depends on no other one. It runs in a separate process, so that its CPU time can be distinguished
//! from theirs.

mod client;
mod cpu;
mod limit;
mod mix;
mod plan;
mod report;
mod run;
mod tally;

pub use mix::{Mix, Step};
pub use plan::{Callers, Load, Pace};
pub use report::Report;
pub use run::run;
