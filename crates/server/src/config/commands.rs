//! What the commands of operators take.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, value_parser};
use clap_complete::Shell;

use super::parse::{duration, exponent, hold, interval};
use super::{Database, DatabaseUrl, Nats, Redis, Secret};
use crate::bench::{Mix, Target};

/// Most buyers of a demonstration: some minutes of work.
const BUYERS_MAX: i64 = 1_000_000;
/// Most requests per second of a schedule: more than two processors can send.
const RATE_MAX: i64 = 1_000_000;
/// Most connections of a load generator: what its process may open in all, and some room.
const CONNECTIONS_MAX: i64 = 16_384;
/// Most events of a load generator: some seconds to put them on sale.
const EVENTS_MAX: i64 = 100_000;

#[derive(Args)]
pub(crate) struct Demo {
    /// How many people want a ticket
    #[arg(long, default_value_t = 10_000, value_parser = value_parser!(u32).range(1..=BUYERS_MAX))]
    pub(crate) buyers: u32,
    /// How many tickets there are
    #[arg(long, default_value_t = 1_000, value_parser = value_parser!(u32).range(1..=BUYERS_MAX))]
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
    /// Where the copy goes; a file that does not exist yet
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
    /// A running server, `http://HOST:PORT`; give several to spread the connections over instances
    #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL", value_delimiter = ',')]
    pub(crate) target: Vec<Target>,
    #[command(flatten)]
    pub(crate) secret: Secret,
    /// Requests per second, on a fixed schedule; without it every connection asks again once it is answered
    #[arg(long, value_parser = value_parser!(u32).range(1..=RATE_MAX))]
    pub(crate) rate: Option<u32>,
    /// Connections, over all targets
    #[arg(long, default_value_t = 256, value_parser = value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    pub(crate) connections: u32,
    /// How long requests are counted
    #[arg(long, default_value = "10s", value_parser = interval)]
    pub(crate) duration: Duration,
    /// How long requests are made before they are counted
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub(crate) warm_up: Duration,
    /// Events on sale, each made anew
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=EVENTS_MAX))]
    pub(crate) events: u32,
    /// How unequally events are wanted, from 0 (evenly) to 3; 1 is Zipf's law
    #[arg(long, default_value_t = 0.0, value_parser = exponent)]
    pub(crate) zipf: f64,
    /// Tickets of each event
    #[arg(long, default_value_t = 1_000_000_000, value_parser = value_parser!(u32).range(1..=1_000_000_000))]
    pub(crate) capacity: u32,
    /// How long a booking may stay unpaid
    #[arg(long, default_value = "1h", value_parser = hold)]
    pub(crate) hold: Duration,
    /// How many users take turns at booking; without it every booking has a user of its own
    #[arg(long, value_parser = value_parser!(u64).range(1..))]
    pub(crate) users: Option<u64>,
    /// What clients do, in parts, of: book, confirm, cancel, leave (unpaid, so that it expires), availability
    #[arg(long, default_value = "book", value_name = "STEP=PARTS,…")]
    pub(crate) mix: Mix,
    /// Where luck begins: the same seed draws the same steps
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Report the processor time of this process and its children (Linux); may be given several times
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub(crate) pid: Vec<u32>,
    /// Audit this database at the end
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Bench {
    /// The database to audit, or what is wrong with its address.
    pub(crate) fn database(&self) -> Result<Option<DatabaseUrl>, String> {
        let url = self.database.as_deref().map(str::parse).transpose();
        url.map_err(|error| format!("--database {error}"))
    }
}

#[derive(Args)]
pub(crate) struct Completions {
    /// The shell that will read them
    pub(crate) shell: Shell,
}

/// Whether whoever reads in a terminal wants colours there (<https://no-color.org>).
pub(crate) fn colours_allowed() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
