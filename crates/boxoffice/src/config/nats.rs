//! Settings for NATS.

use std::path::PathBuf;

use clap::Args;
use nats::{Address, Settings};

#[derive(Args)]
pub(crate) struct Nats {
    /// NATS servers: nats://… or tls://…, the servers of a cluster separated by commas; without it, NATS is
    /// not used
    #[arg(id = "nats", long = "nats", env = "BOXOFFICE_NATS", value_name = "URL", hide_env_values = true)]
    text: Option<String>,
    /// Credentials file for NATS, as written by `nsc`
    #[arg(long = "nats-creds", env = "BOXOFFICE_NATS_CREDS", value_name = "FILE", requires = "nats")]
    creds: Option<PathBuf>,
    /// PEM file with CA certificates for NATS; by default those of the system
    #[arg(long = "nats-ca", env = "BOXOFFICE_NATS_CA", value_name = "FILE", requires = "nats")]
    ca: Option<PathBuf>,
    /// Replicas of a new stream: 1, or 3 on a cluster; an existing stream is not changed
    #[arg(
        long = "nats-replicas",
        env = "BOXOFFICE_NATS_REPLICAS",
        value_name = "1|3",
        default_value_t = 1,
        value_parser = replicas
    )]
    replicas: usize,
}

/// Parses the number of replicas. Three survive the loss of a server. With two, the loss of either stops the
/// stream, and more than three only add cost.
fn replicas(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("a stream has 1 replica, or 3 on a cluster".to_owned()),
    }
}

impl Nats {
    /// Checks the address. The parser does not, because its error would contain the password.
    pub(super) fn check(&self) -> Result<(), String> {
        self.text.as_deref().map_or(Ok(()), |text| {
            text.parse::<Address>().map(drop).map_err(|error| format!("--nats {error}"))
        })
    }

    /// Returns the settings of the connection; `None` if NATS is not configured.
    pub(crate) fn settings(&self) -> Option<Settings> {
        let text = self.text.as_deref()?;
        let address = text.parse().unwrap_or_else(|_| unreachable!("checked when the command line was read"));
        Some(Settings { address, creds: self.creds.clone(), ca: self.ca.clone(), replicas: self.replicas })
    }
}
