//! The database and Redis as dependencies of the service: their state and their metrics. NATS is described by
//! its own crate.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use api::metrics::{MetricsEncoder, gauge};
use api::{Dependency, Readiness, Status};
use async_trait::async_trait;
use engine::Engine;
use prometheus_client::metrics::counter::ConstCounter;
use supervisor::Task;

use crate::coordination_ports::SharedRedis;

/// The database, as the engine uses it.
pub(crate) struct DatabaseDependency(pub(crate) Arc<Engine>);

#[async_trait]
impl Dependency for DatabaseDependency {
    fn name(&self) -> &'static str {
        "database"
    }

    async fn status(&self) -> Status {
        let (readiness, report) = match self.0.health().await {
            Ok(health) if health.warnings.is_empty() => (Readiness::Ready, "ok".to_owned()),
            Ok(health) => (Readiness::Degraded, health.warnings.join("; ")),
            Err(error) => {
                let report = error.source().map_or(error.to_string(), |cause| format!("{error}: {cause}"));
                (Readiness::Unavailable("The database is unavailable."), report)
            }
        };
        Status { readiness, report: report.into() }
    }
}

/// The Redis that shares rate limits and locks with other instances.
pub(crate) struct RedisDependency {
    pub(crate) shared: Arc<SharedRedis>,
    /// Takes leases on this Redis.
    pub(crate) engine: Arc<Engine>,
}

#[async_trait]
impl Dependency for RedisDependency {
    fn name(&self) -> &'static str {
        "redis"
    }

    async fn status(&self) -> Status {
        if self.shared.redis.is_up() {
            Status { readiness: Readiness::Ready, report: "ok".into() }
        } else {
            Status { readiness: Readiness::Degraded, report: "Redis is not reachable".into() }
        }
    }

    fn encode_metrics(&self, metrics: &mut MetricsEncoder<'_>) -> fmt::Result {
        let SharedRedis { redis, limiter } = &*self.shared;
        let help = "1 while Redis is used, 0 while it is unavailable";
        metrics.encode("boxoffice_redis_up", help, &gauge(u8::from(redis.is_up())))?;
        let help = "Attempts that were decided without Redis";
        metrics.encode("boxoffice_limiter_fallbacks", help, &ConstCounter::new(limiter.fallback_count()))?;
        for (name, help, count) in redis.counts().iter() {
            encode_count(metrics, name, help.trim().trim_end_matches('.'), count)?;
        }
        let count = self.engine.desk_stats().batches_without_lease;
        let help = "Batches of an event that ran without its lease";
        metrics.encode("boxoffice_batches_without_lease", help, &ConstCounter::new(count))
    }

    fn tasks(&self) -> Vec<Arc<Task>> {
        self.shared.redis.tasks()
    }
}

/// Writes a count of the Redis client. A name that ends in `_micros` is a time and becomes one in seconds.
fn encode_count(metrics: &mut MetricsEncoder<'_>, name: &str, help: &str, count: u64) -> fmt::Result {
    match name.strip_suffix("_micros") {
        Some(name) => {
            let seconds = ConstCounter::new(Duration::from_micros(count).as_secs_f64());
            metrics.encode_seconds(&format!("boxoffice_redis_{name}"), help, &seconds)
        }
        None => metrics.encode(&format!("boxoffice_redis_{name}"), help, &ConstCounter::new(count)),
    }
}
