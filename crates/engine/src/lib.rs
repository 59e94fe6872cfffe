//! What the service does: use cases, the desk that gathers waiting commands into one commit, and the audit.
//!
//! This is the crate a program embeds. It sees ports only ([`Ports`]): which database, lock or bus stands
//! behind them is decided where the program is put together. It decides no rule of booking; those are in
//! `domain`.

mod bookings;
mod chore;
mod clock;
mod desk;
mod engine;
mod error;
mod events;
mod lease;
mod limit;
mod ports;
mod reads;
mod refunds;
pub mod relay;
mod system;
mod watch;

pub use bookings::{CapturedPayment, OrderRequest};
pub use chore::{Health, SweepReport, Sweeper};
pub use desk::DeskStats;
pub use engine::{Caller, CommandOutput, Engine, RateLimited};
pub use error::Error;
pub use limit::{
    BOOKING_LOCK_WAIT_MAX, CALLER_READS_QUEUED_MAX, LEASE_WAIT_MAX, QUEUE_MAX, QUEUE_WAIT_MAX, READ_MAX,
    READ_WAIT_MAX, RELAY_EVENTS_MAX, RELAY_WAKEUPS_MAX,
};
pub use ports::{CommitListener, NoopListener, Policy, Ports};
pub use reads::Reader;
pub use refunds::RefundOutcome;
pub use system::{SystemClock, SystemIds};
