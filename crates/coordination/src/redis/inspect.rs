//! A look at a server, for an operator.

use std::time::Duration;

use tokio::time::Instant;

use super::Redis;
use crate::Unavailable;

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// `redis` or `valkey`.
    pub product: String,
    /// Its version, e.g. `7.0.15`.
    pub version: String,
    /// `master` or `slave`, in the server's words.
    pub role: String,
    /// What it does when its memory is full; only `noeviction` forgets nothing that is still needed.
    pub maxmemory_policy: String,
    /// The memory it may use, in bytes; 0 for no bound.
    pub maxmemory_bytes: u64,
    /// How long a PING took there and back, the fastest of a few.
    pub latency: Duration,
}

/// Pings that are timed.
const PINGS: usize = 5;

impl Redis {
    /// Asks the server about itself.
    pub async fn inspect(&self) -> Result<Inspection, Unavailable> {
        let mut latency = Duration::MAX;
        for _ in 0..PINGS {
            let asked = Instant::now();
            self.link.ask::<String>(&redis::cmd("PING")).await?;
            latency = latency.min(asked.elapsed());
        }
        let info: String = self.link.ask(&redis::cmd("INFO")).await?;
        let line = |name: &str| {
            let named = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned());
            info.lines().find_map(named)
        };
        let (product, version) = match line("valkey_version") {
            Some(version) => ("valkey", version),
            None => ("redis", line("redis_version").unwrap_or_default()),
        };
        Ok(Inspection {
            product: product.to_owned(),
            version,
            role: line("role").unwrap_or_default(),
            maxmemory_policy: line("maxmemory_policy").unwrap_or_default(),
            maxmemory_bytes: line("maxmemory").and_then(|bytes| bytes.parse().ok()).unwrap_or(0),
            latency,
        })
    }
}
