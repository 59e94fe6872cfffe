//! How NATS is reached.

use std::path::PathBuf;

use clap::Args;

use crate::nats::Address;

#[derive(Clone, Args)]
pub(crate) struct Nats {
    /// NATS for requests and messages: nats://… or tls://…, several of a cluster separated by commas; none when unset
    #[arg(id = "nats", long = "nats", env = "BOXOFFICE_NATS", value_name = "URL", hide_env_values = true)]
    text: Option<String>,
    /// A file with credentials for NATS, as `nsc` writes it
    #[arg(long = "nats-creds", env = "BOXOFFICE_NATS_CREDS", value_name = "FILE", requires = "nats")]
    pub(crate) creds: Option<PathBuf>,
    /// The authorities that the certificate of NATS is checked with, in PEM; the system's when unset
    #[arg(long = "nats-ca", env = "BOXOFFICE_NATS_CA", value_name = "FILE", requires = "nats")]
    pub(crate) ca: Option<PathBuf>,
    /// Replicas of the stream when it is created: 3 on a cluster. A stream that exists keeps its number
    #[arg(
        long = "nats-replicas",
        env = "BOXOFFICE_NATS_REPLICAS",
        value_name = "1|3",
        default_value_t = 1,
        value_parser = replicas
    )]
    pub(crate) replicas: usize,
}

/// One server, or as many as survive the loss of one. Two lose the stream with either, and more only cost.
fn replicas(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("a stream has 1 replica, or 3 on a cluster".to_owned()),
    }
}

impl Nats {
    /// What is wrong with the address. Said here and not by the parser, which would repeat a password.
    pub(super) fn check(&self) -> Result<(), String> {
        self.text.as_deref().map_or(Ok(()), |text| {
            text.parse::<Address>().map(drop).map_err(|error| format!("--nats {error}"))
        })
    }

    /// Where it is, where there is one.
    pub(crate) fn address(&self) -> Option<Address> {
        let text = self.text.as_deref()?;
        Some(text.parse().unwrap_or_else(|_| unreachable!("checked when the command line was read")))
    }
}
