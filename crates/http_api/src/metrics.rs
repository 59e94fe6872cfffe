//! The metrics of the HTTP transport.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use api::metrics::{MetricsEncoder, gauge};
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::streams::Streams;

/// Counts and durations of requests, and the number of open streams.
pub struct HttpMetrics {
    durations: Family<RequestLabels, Histogram, fn() -> Histogram>,
    problems: Family<[(&'static str, &'static str); 1], Counter>,
    streams: Arc<Streams>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RequestLabels {
    method: &'static str,
    /// The pattern that the request matched, not its path.
    route: Option<String>,
    status: u16,
}

impl EncodeLabelSet for RequestLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("http_request_method", self.method).encode(encoder.encode_label())?;
        ("http_route", self.route.as_deref().unwrap_or("none")).encode(encoder.encode_label())?;
        ("http_response_status_code", self.status).encode(encoder.encode_label())
    }
}

/// From half a millisecond to eight seconds, doubling: a request may wait 5 s in the desk's queue.
fn duration_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.0, 15))
}

impl HttpMetrics {
    /// All counts at zero, and the number of these streams.
    pub fn new(streams: Arc<Streams>) -> Self {
        let durations = Family::new_with_constructor(duration_histogram as fn() -> Histogram);
        Self { durations, problems: Family::default(), streams }
    }

    /// Records the duration of a request; `route` is the pattern it matched, not its path.
    pub(crate) fn record_request(
        &self,
        method: &'static str,
        route: Option<&str>,
        status: u16,
        took: Duration,
    ) {
        let labels = RequestLabels { method, route: route.map(str::to_owned), status };
        self.durations.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts a request that was refused or failed.
    pub(crate) fn record_problem(&self, code: &'static str) {
        self.problems.get_or_create(&[("code", code)]).inc();
    }

    /// Writes all metrics of the transport.
    pub fn encode(&self, metrics: &mut MetricsEncoder<'_>) -> fmt::Result {
        let help = "Time from a request to its response";
        metrics.encode_seconds("http_server_request_duration", help, &self.durations)?;
        let help = "Requests that were refused or failed, by problem code";
        metrics.encode("boxoffice_problems", help, &self.problems)?;
        metrics.encode("boxoffice_streams", "Open availability streams", &gauge(self.streams.count()))
    }
}
