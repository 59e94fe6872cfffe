//! A simulator, and an exhaustive model of the protocol. For tests only.
//!
//! The simulator runs the real engine (desk, chores, use cases) over the real embedded store, in memory, on
//! one thread and under a clock of its own. Several processes share one store, one lock and one limiter;
//! people order, pay, cancel and hang up; and at every door something may go wrong. All luck comes from one
//! seed, so a seed that breaks a promise breaks it again.
//!
//! This crate knows how the program is made; `testkit`, which drives it from outside, must not.

mod campaign;
mod checker;
mod deadlines;
#[cfg(feature = "sabotage")]
mod detect;
mod fleet;
pub mod model;
mod nats;
mod ports;
mod process;
mod run;
mod scenario;
mod store;
mod workload;
mod world;

pub use campaign::{Campaign, missing};
#[cfg(feature = "sabotage")]
pub use detect::find_detecting_seed;
pub use run::{Report, run};
