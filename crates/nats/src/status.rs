//! NATS as a dependency of the service: its state and its metrics.

use std::fmt;
use std::time::Duration;

use api::metrics::{MetricsEncoder, gauge};
use api::{Dependency, Readiness, Status};
use async_trait::async_trait;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use serde_json::json;

use crate::connection::Nats;

impl Nats {
    /// Describes the error of the connection or the relay; `None` if there is none.
    fn error(&self) -> Option<String> {
        match (self.is_connected(), self.connection_error.reason()) {
            (true, Some(reason)) => Some(format!("NATS reports an error: {reason}")),
            (true, None) => self.relay.status().error,
            (false, Some(reason)) => Some(format!("no connection to NATS: {reason}")),
            (false, None) => Some("no connection to NATS".to_owned()),
        }
    }
}

#[async_trait]
impl Dependency for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    async fn status(&self) -> Status {
        let (relay, error) = (self.relay.status(), self.error());
        let readiness = if error.is_some() { Readiness::Degraded } else { Readiness::Ready };
        let report = json!({
            "status": error.unwrap_or_else(|| "ok".to_owned()),
            "relay": {
                "status": relay.error.as_deref().unwrap_or("ok"),
                "active": relay.is_active,
                "pendingEntries": relay.pending,
                "lagMillis": relay.lag_micros / 1_000,
                "waitingSeconds": relay.waiting_seconds,
            },
        });
        Status { readiness, report }
    }

    fn encode_metrics(&self, metrics: &mut MetricsEncoder<'_>) -> fmt::Result {
        let help = "Requests over NATS, by subject and code: `ok`, a problem code, or `dropped`";
        metrics.encode("boxoffice_nats_requests", help, &self.requests)?;
        let help = "1 while NATS is connected, 0 while it is unavailable";
        metrics.encode("boxoffice_nats_up", help, &gauge(u8::from(self.is_connected())))?;
        let relay = self.relay.status();
        let help = "1 while this instance's relay is the active one";
        metrics.encode("boxoffice_relay_active", help, &gauge(u8::from(relay.is_active)))?;
        let help = "Ledger entries not yet published, counted by the active relay";
        metrics.encode("boxoffice_relay_pending_entries", help, &gauge(relay.pending))?;
        let help = "Time from the commit of the last published entry to its publication";
        let lag = ConstGauge::new(Duration::from_micros(relay.lag_micros).as_secs_f64());
        metrics.encode_seconds("boxoffice_relay_lag", help, &lag)?;
        let help = "Ledger entries that this instance published";
        metrics.encode("boxoffice_relay_published", help, &ConstCounter::new(relay.published))?;
        let help = "1 while entries cannot be published";
        metrics.encode("boxoffice_relay_error", help, &gauge(u8::from(relay.error.is_some())))?;
        let help = "Time for which entries have been pending without a publication";
        metrics.encode_seconds("boxoffice_relay_wait", help, &gauge(relay.waiting_seconds))
    }
}
