//! Facts about a server, for an operator.

use std::time::Duration;

use tokio::time::Instant;

use super::Redis;
use crate::Unavailable;
use crate::limit::PINGS_MEASURED;

/// The facts that a server reports, and its latency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// `redis` or `valkey`.
    pub product: String,
    /// The version, e.g. `7.0.15`.
    pub version: String,
    /// `master` or `slave`, as INFO reports it.
    pub role: String,
    /// The policy when memory is full. Only `noeviction` never evicts a key that is still needed.
    pub maxmemory_policy: String,
    /// The memory limit in bytes; 0 for none.
    pub maxmemory_bytes: u64,
    /// Round trip of a PING, the fastest of five.
    pub latency: Duration,
}

impl Redis {
    /// Measures the latency and reads INFO.
    pub async fn inspect(&self) -> Result<Inspection, Unavailable> {
        let mut latency = Duration::MAX;
        for _ in 0..PINGS_MEASURED {
            let sent = Instant::now();
            self.connection.query::<String>(&redis::cmd("PING")).await?;
            latency = latency.min(sent.elapsed());
        }
        let info: String = self.connection.query(&redis::cmd("INFO")).await?;
        let line = |name: &str| {
            let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned());
            info.lines().find_map(value)
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
