//! A simulator, and an exhaustive model of the protocol. For tests only.
//!
//! The simulator runs the real engine (desk, chores, use cases) over the real embedded store, in memory, on
//! one thread and under a clock of its own. Several processes share one store, one lock and one limiter;
//! people order, pay, cancel and hang up; and at every door something may go wrong. All luck comes from one
//! seed, so a seed that breaks a promise breaks it again.
//!
//! This crate knows how the program is made; `testkit`, which drives it from outside, must not.

mod bell;
mod campaign;
mod deadlines;
mod fleet;
#[cfg(feature = "sabotage")]
mod hunt;
mod judge;
mod life;
mod mix;
pub mod model;
mod ports;
mod run;
mod store;
mod town;
mod world;

pub use campaign::{Campaign, missing};
#[cfg(feature = "sabotage")]
pub use hunt::hunt;
pub use run::{Report, run};
