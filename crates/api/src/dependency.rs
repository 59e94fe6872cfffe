//! What the service depends on while it runs: the database, Redis, NATS.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use supervisor::Task;

use crate::metrics::MetricsEncoder;

/// A server or file that the service uses. Readiness and metrics iterate over all of them and know none.
#[async_trait]
pub trait Dependency: Send + Sync {
    /// The name in `/readyz?verbose`.
    fn name(&self) -> &'static str;

    /// The state now.
    async fn status(&self) -> Status;

    /// Writes its metrics, if it has any.
    fn encode_metrics(&self, _metrics: &mut MetricsEncoder<'_>) -> fmt::Result {
        Ok(())
    }

    /// The background tasks of its client.
    fn tasks(&self) -> Vec<Arc<Task>> {
        Vec::new()
    }
}

/// The state of a dependency.
#[derive(Clone, Debug)]
pub struct Status {
    /// Its effect on the service.
    pub readiness: Readiness,
    /// The report in `/readyz?verbose`.
    pub report: Value,
}

/// The effect of a dependency's state on the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Everything works.
    Ready,
    /// The service can sell, but an operator must act.
    Degraded,
    /// The service cannot sell, for this reason: a sentence for clients.
    Unavailable(&'static str),
}
