//! Encoding of metrics in the text format of Prometheus (OpenMetrics 1.0).
//!
//! Counters end in `_total`, times are in seconds, and a family has one unit. Label values are constants,
//! route patterns and status codes, never ids, so that clients cannot add time series.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// The media type of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes the metrics of one part of the program, which are read when they are written.
pub struct MetricsEncoder<'a>(DescriptorEncoder<'a>);

impl<'a> MetricsEncoder<'a> {
    /// Writes to the encoder of a registry.
    pub fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    /// Writes a metric without a unit. The format adds `_total` to the name of a counter.
    pub fn encode(&mut self, name: &str, help: &str, metric: &dyn EncodeMetric) -> fmt::Result {
        self.encode_with_unit(name, help, None, metric)
    }

    /// Writes a metric in seconds. The format adds `_seconds` to its name.
    pub fn encode_seconds(&mut self, name: &str, help: &str, metric: &dyn EncodeMetric) -> fmt::Result {
        self.encode_with_unit(name, help, Some(&Unit::Seconds), metric)
    }

    fn encode_with_unit(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        metric: &dyn EncodeMetric,
    ) -> fmt::Result {
        // A family without a time series has no type yet.
        if metric.is_empty() {
            return Ok(());
        }
        metric.encode(self.0.encode_descriptor(name, &format!("{help}."), unit, metric.metric_type())?)
    }
}

/// A gauge with this value.
pub fn gauge<T: TryInto<i64>>(number: T) -> ConstGauge {
    ConstGauge::new(number.try_into().unwrap_or(i64::MAX))
}
