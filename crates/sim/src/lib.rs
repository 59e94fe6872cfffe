//! Deterministic simulation testing of the engine, and an exhaustive model of its protocol. For tests only.
//!
//! The simulator runs the real engine (desk, chores, use cases) on the real embedded store, in memory, on one
//! thread and under a simulated clock. Several processes share one store, one lock and one limiter. Clients
//! book, pay, cancel and hang up, and faults are injected at every boundary. All randomness comes from one
//! seed, so a seed that violates an invariant violates it again.
//!
//! This crate may use internals of the program; `testkit`, which drives the program from outside, must not.

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
mod spawn;
mod store;
mod stream_checker;
mod workload;
mod world;

pub use campaign::{Campaign, missing_coverage};
#[cfg(feature = "sabotage")]
pub use detect::find_detecting_seed;
pub use run::{Report, run};
