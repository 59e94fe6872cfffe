//! Arguments of the commands other than `dev` and `serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, value_parser};
use clap_complete::Shell;

use super::operations::OperationWeights;
use super::parse::{duration, exponent, hold_duration, interval, target};
use super::{Database, DatabaseUrl, Nats, Redis, Secret};
use crate::limit::{BENCH_CONNECTIONS_MAX, BENCH_EVENTS_MAX, BENCH_RATE_MAX, DEMO_BUYERS_MAX};

#[derive(Args)]
pub(crate) struct Demo {
    /// Number of buyers
    #[arg(long, default_value_t = 10_000, value_parser = value_parser!(u32).range(1..=DEMO_BUYERS_MAX))]
    pub(crate) buyers: u32,
    /// Number of tickets
    #[arg(long, default_value_t = 1_000, value_parser = value_parser!(u32).range(1..=DEMO_BUYERS_MAX))]
    pub(crate) tickets: u32,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Sweep {
    #[command(flatten)]
    pub(crate) database: Database,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Backup {
    #[command(flatten)]
    pub(crate) database: Database,
    /// File for the copy; must not exist yet
    #[arg(long, value_name = "FILE")]
    pub(crate) to: PathBuf,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) redis: Redis,
    #[command(flatten)]
    pub(crate) nats: Nats,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Bench {
    /// URL of a running server, `http://HOST:PORT`; give several to spread connections over instances
    #[arg(
        long,
        default_value = "http://127.0.0.1:8080",
        value_name = "URL",
        value_delimiter = ',',
        value_parser = target
    )]
    pub(crate) target: Vec<SocketAddr>,
    #[command(flatten)]
    pub(crate) secret: Secret,
    /// Requests per second on a fixed schedule (open loop); without it, each connection sends its next
    /// request after a response (closed loop)
    #[arg(long, value_parser = value_parser!(u32).range(1..=BENCH_RATE_MAX))]
    pub(crate) rate: Option<u32>,
    /// Number of connections, over all targets
    #[arg(long, default_value_t = 256, value_parser = value_parser!(u32).range(1..=BENCH_CONNECTIONS_MAX))]
    pub(crate) connections: u32,
    /// Duration of the measurement
    #[arg(long, default_value = "10s", value_parser = interval)]
    pub(crate) duration: Duration,
    /// Warm-up before the measurement
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub(crate) warm_up: Duration,
    /// Number of events on sale, created for this run
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=BENCH_EVENTS_MAX))]
    pub(crate) events: u32,
    /// Zipf exponent of event popularity, up to 3 (0 = uniform)
    #[arg(long, default_value_t = 0.0, value_parser = exponent)]
    pub(crate) zipf: f64,
    /// Tickets per event
    #[arg(long, default_value_t = 1_000_000_000, value_parser = value_parser!(u32).range(1..=1_000_000_000))]
    pub(crate) capacity: u32,
    /// Time in which bookings must be paid
    #[arg(long, default_value = "1h", value_parser = hold_duration)]
    pub(crate) hold: Duration,
    /// Number of users; without it, every booking has a new user
    #[arg(long, value_parser = value_parser!(u64).range(1..))]
    pub(crate) users: Option<u64>,
    /// Operation mix by weight, e.g. `book=8,confirm=2`; operations: book, confirm, cancel, leave (unpaid, to
    /// expire), availability
    #[arg(long, default_value = "book", value_name = "OPERATION=WEIGHT,…")]
    pub(crate) mix: OperationWeights,
    /// Random seed; the same seed draws the same operations
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Process whose CPU time is reported, with its children (Linux only); can be repeated
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub(crate) pid: Vec<u32>,
    /// Database to audit at the end
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Bench {
    /// Parses the address of the database to audit. The error names the flag.
    pub(crate) fn database(&self) -> Result<Option<DatabaseUrl>, String> {
        let url = self.database.as_deref().map(str::parse).transpose();
        url.map_err(|error| format!("--database {error}"))
    }
}

#[derive(Args)]
pub(crate) struct Completions {
    /// Shell to generate completions for
    pub(crate) shell: Shell,
}

/// Returns true unless `NO_COLOR` is set (<https://no-color.org>).
pub(crate) fn colours_allowed() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
