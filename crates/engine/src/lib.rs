//! The booking service: use cases, the desk that executes waiting commands in one commit (group commit), and
//! background chores.
//!
//! Programs embed this crate. It depends on ports only ([`Ports`]): the program that constructs the engine
//! chooses the database, the locks and the event bus. It contains no booking rules; those are in `domain`.

mod bookings;
mod chore;
mod clock;
mod desk;
mod engine;
mod error;
mod events;
mod health;
mod lease;
mod limit;
mod ports;
mod reads;
mod refunds;
pub mod relay;
mod system;
mod watch;

pub use bookings::OffsetPage;
pub use chore::{SweepReport, Sweeper};
pub use desk::DeskStats;
pub use engine::{Caller, Engine, RateLimitedResult};
pub use error::Error;
pub use health::Health;
pub use limit::{LEASE_WAIT_MAX, QUEUE_MAX, RELAY_EVENTS_MAX, RELAY_WAKEUPS_MAX};
pub use ports::{CommitListener, NoopListener, Policy, Ports};
pub use reads::Reader;
pub use store::CommandOutput;
pub use system::{SystemClock, SystemIds};
