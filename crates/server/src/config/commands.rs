//! What the commands of operators take.

use std::path::PathBuf;

use clap::{Args, value_parser};
use clap_complete::Shell;

use super::{Database, RedisAddress};

/// Most buyers of a demonstration: some minutes of work.
const BUYERS_MAX: i64 = 1_000_000;

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
    /// Redis, where instances share one
    #[arg(long, env = "BOXOFFICE_REDIS", value_name = "URL", hide_env_values = true)]
    pub(crate) redis: Option<RedisAddress>,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args)]
pub(crate) struct Completions {
    /// The shell that will read them
    pub(crate) shell: Shell,
}

/// Whether whoever reads in a terminal wants colours there (<https://no-color.org>).
pub(crate) fn wants_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
