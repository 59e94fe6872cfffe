//! Metrics in the text format of Prometheus (OpenMetrics 1.0).
//!
//! Counters end in `_total`, times are in seconds, and a family has one unit. Label values are constants,
//! route patterns and status codes, never ids, so that clients cannot add time series.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelSetEncoder, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use coordination::redis::Counts;

use crate::coordination_ports::SharedRedis;
use crate::http::App;
use crate::log;
use crate::nats::Nats;

/// The media type of [`Telemetry::render`]'s text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Metrics of one running service.
pub(crate) struct Telemetry {
    registry: Registry,
    requests: Family<Labels<3>, Histogram, fn() -> Histogram>,
    problems: Family<Labels<1>, Counter>,
    nats_requests: Family<Labels<2>, Counter>,
    metrics: Metrics,
}

/// Metrics whose values are read from the parts of the program when the metrics are rendered.
#[derive(Default)]
struct Metrics {
    queue_length: Gauge,
    reads_waiting: Family<Labels<1>, Gauge>,
    batches: Counter,
    commands: Counter,
    batches_without_lease: Counter,
    streams: Gauge,
    clock_jumps: Counter,
    chores: Family<Labels<1>, Gauge>,
    task_up: Family<Labels<1>, Gauge>,
    task_restarts: Family<Labels<1>, Counter>,
    panics: Counter,
    log_lines_lost: Counter,
    redis: Option<RedisMetrics>,
    nats: Option<NatsMetrics>,
}

/// Metrics of an instance that has a Redis.
#[derive(Default)]
struct RedisMetrics {
    up: Gauge,
    limiter_fallbacks: Counter,
    /// One of these two for each field of [`Counts`], in its order.
    counts: Vec<RedisCounter>,
}

enum RedisCounter {
    Events(Counter),
    Seconds(Counter<f64, AtomicU64>),
}

/// Metrics of an instance that is connected to NATS.
#[derive(Default)]
struct NatsMetrics {
    up: Gauge,
    relay_active: Gauge,
    relay_pending_entries: Gauge,
    relay_lag: Gauge<f64, AtomicU64>,
    relay_published: Counter,
    relay_error: Gauge,
    relay_wait: Gauge,
}

/// Label names and values, of fixed number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Labels<const N: usize>([(&'static str, LabelValue); N]);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum LabelValue {
    Fixed(&'static str),
    Owned(String),
    Number(u16),
}

impl<const N: usize> EncodeLabelSet for Labels<N> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}

impl EncodeLabelValue for LabelValue {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Fixed(text) => text.encode(encoder),
            Self::Owned(text) => text.as_str().encode(encoder),
            Self::Number(number) => u64::from(*number).encode(encoder),
        }
    }
}

/// From half a millisecond to eight seconds, doubling: a request may wait 5 s in the desk's queue.
fn duration_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.0, 15))
}

impl Metrics {
    fn register(&self, registry: &mut Registry) {
        let help = "Commands in the desk's queue";
        registry.register("boxoffice_queue_length", help, self.queue_length.clone());
        let help = "Reads in the queue, by kind of callers";
        registry.register("boxoffice_reads_waiting", help, self.reads_waiting.clone());
        registry.register("boxoffice_batches", "Batches executed", self.batches.clone());
        registry.register("boxoffice_commands", "Commands in executed batches", self.commands.clone());
        registry.register("boxoffice_streams", "Open availability streams", self.streams.clone());
        let help = "Jumps of this machine's clock by more than a minute";
        registry.register("boxoffice_clock_jumps", help, self.clock_jumps.clone());
        let help = "Time of a background chore's last success";
        let name = "boxoffice_chore_last_success_timestamp";
        registry.register_with_unit(name, help, Unit::Seconds, self.chores.clone());
        let help = "1 while a background task runs, 0 between a panic and the restart";
        registry.register("boxoffice_task_up", help, self.task_up.clone());
        let help = "Panics of a background task, each followed by a restart";
        registry.register("boxoffice_task_restarts", help, self.task_restarts.clone());
        registry.register("boxoffice_panics", "Panics in any task or thread", self.panics.clone());
        let help = "Log lines that could not be written";
        registry.register("boxoffice_log_lines_lost", help, self.log_lines_lost.clone());
        if let Some(redis) = &self.redis {
            redis.register(registry);
            let help = "Batches of an event that ran without its lease";
            registry.register("boxoffice_batches_without_lease", help, self.batches_without_lease.clone());
        }
        if let Some(nats) = &self.nats {
            nats.register(registry);
        }
    }

    fn read(&self, app: &App) {
        let desk = app.engine.desk_stats();
        self.queue_length.set(to_i64(desk.waiting));
        for (callers, waiting) in app.engine.reads_waiting() {
            let labels = Labels([("callers", LabelValue::Fixed(callers))]);
            self.reads_waiting.get_or_create(&labels).set(to_i64(waiting));
        }
        set_counter(&self.batches, desk.batches);
        set_counter(&self.commands, desk.commands);
        set_counter(&self.batches_without_lease, desk.batches_without_lease);
        self.streams.set(to_i64(app.streams.count()));
        set_counter(&self.clock_jumps, app.engine.clock_jumps());
        for chore in app.engine.chores() {
            let labels = Labels([("chore", LabelValue::Fixed(chore.name()))]);
            self.chores.get_or_create(&labels).set(chore.last_success().micros() / 1_000_000);
        }
        for task in app.tasks() {
            let labels = Labels([("task", LabelValue::Fixed(task.name()))]);
            self.task_up.get_or_create(&labels).set((!task.is_down()).into());
            set_counter(&self.task_restarts.get_or_create(&labels), task.restarts());
        }
        set_counter(&self.panics, log::panics());
        set_counter(&self.log_lines_lost, log::lines_lost());
        if let (Some(metrics), Some(redis)) = (&self.redis, app.redis.as_deref()) {
            metrics.read(redis);
        }
        if let (Some(metrics), Some(nats)) = (&self.nats, app.nats.as_deref()) {
            metrics.read(nats);
        }
    }
}

impl RedisMetrics {
    fn new() -> Self {
        let counter = |(name, ..): (&str, _, _)| match name.strip_suffix("_micros") {
            Some(_) => RedisCounter::Seconds(Counter::default()),
            None => RedisCounter::Events(Counter::default()),
        };
        Self { counts: Counts::default().iter().map(counter).collect(), ..Self::default() }
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "boxoffice_redis_up",
            "1 while Redis is used, 0 while it is unavailable",
            self.up.clone(),
        );
        let help = "Attempts that were decided without Redis";
        registry.register("boxoffice_limiter_fallbacks", help, self.limiter_fallbacks.clone());
        for ((name, help, _), counter) in Counts::default().iter().zip(&self.counts) {
            let name = format!("boxoffice_redis_{}", name.trim_end_matches("_micros"));
            let help = help.trim().trim_end_matches('.');
            match counter {
                RedisCounter::Events(counter) => registry.register(name, help, counter.clone()),
                RedisCounter::Seconds(counter) => {
                    registry.register_with_unit(name, help, Unit::Seconds, counter.clone());
                }
            }
        }
    }

    fn read(&self, SharedRedis { redis, limiter }: &SharedRedis) {
        self.up.set(redis.is_up().into());
        set_counter(&self.limiter_fallbacks, limiter.fallback_count());
        for ((_, _, count), counter) in redis.counts().iter().zip(&self.counts) {
            match counter {
                RedisCounter::Events(counter) => set_counter(counter, count),
                RedisCounter::Seconds(counter) => {
                    let seconds = Duration::from_micros(count).as_secs_f64();
                    counter.inner().store(seconds.to_bits(), Ordering::Relaxed);
                }
            }
        }
    }
}

impl NatsMetrics {
    fn register(&self, registry: &mut Registry) {
        let help = "1 while NATS is connected, 0 while it is unavailable";
        registry.register("boxoffice_nats_up", help, self.up.clone());
        let help = "1 while this instance's relay is the active one";
        registry.register("boxoffice_relay_active", help, self.relay_active.clone());
        let help = "Ledger entries not yet published, counted by the active relay";
        registry.register("boxoffice_relay_pending_entries", help, self.relay_pending_entries.clone());
        let help = "Time from the commit of the last published entry to its publication";
        registry.register_with_unit("boxoffice_relay_lag", help, Unit::Seconds, self.relay_lag.clone());
        let help = "Ledger entries that this instance published";
        registry.register("boxoffice_relay_published", help, self.relay_published.clone());
        let help = "1 while entries cannot be published";
        registry.register("boxoffice_relay_error", help, self.relay_error.clone());
        let help = "Time for which entries have been pending without a publication";
        registry.register_with_unit("boxoffice_relay_wait", help, Unit::Seconds, self.relay_wait.clone());
    }

    fn read(&self, nats: &Nats) {
        self.up.set(nats.is_connected().into());
        let relay = nats.relay.status();
        self.relay_active.set(relay.is_active.into());
        self.relay_pending_entries.set(to_i64(relay.pending));
        self.relay_lag.set(Duration::from_micros(relay.lag_micros).as_secs_f64());
        set_counter(&self.relay_published, relay.published);
        self.relay_error.set(relay.error.is_some().into());
        self.relay_wait.set(to_i64(relay.waiting_seconds));
    }
}

impl Telemetry {
    /// All metrics at zero, with those of Redis and NATS if the instance uses them.
    pub(crate) fn new(with_redis: bool, with_nats: bool) -> Self {
        let mut registry = Registry::default();
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("boxoffice_build", "Version of the program", build);
        let requests: Family<_, _, fn() -> Histogram> =
            Family::new_with_constructor(duration_histogram as fn() -> Histogram);
        let help = "Time from a request to its response";
        registry.register_with_unit("http_server_request_duration", help, Unit::Seconds, requests.clone());
        let problems = Family::default();
        let help = "Requests that were refused or failed, by problem code";
        registry.register("boxoffice_problems", help, problems.clone());
        let nats_requests = Family::default();
        if with_nats {
            let help = "Requests over NATS, by subject and code: `ok`, a problem code, or `dropped`";
            registry.register("boxoffice_nats_requests", help, nats_requests.clone());
        }
        let metrics = Metrics {
            redis: with_redis.then(RedisMetrics::new),
            nats: with_nats.then(NatsMetrics::default),
            ..Metrics::default()
        };
        metrics.register(&mut registry);
        Self { registry, requests, problems, nats_requests, metrics }
    }

    /// Records the duration of a request; `route` is the pattern it matched, not its path.
    pub(crate) fn record_request(
        &self,
        method: &'static str,
        route: Option<&str>,
        status: u16,
        took: Duration,
    ) {
        let route = route.map_or(LabelValue::Fixed("none"), |route| LabelValue::Owned(route.to_owned()));
        let labels = Labels([
            ("http_request_method", LabelValue::Fixed(method)),
            ("http_route", route),
            ("http_response_status_code", LabelValue::Number(status)),
        ]);
        self.requests.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts a request that was refused or failed.
    pub(crate) fn record_problem(&self, code: &'static str) {
        self.problems.get_or_create(&Labels([("code", LabelValue::Fixed(code))])).inc();
    }

    /// Counts a request over NATS; `code` is a problem's, `ok`, or `dropped` if its deadline had passed.
    pub(crate) fn record_nats_request(&self, subject: &'static str, code: &str) {
        let labels =
            Labels([("subject", LabelValue::Fixed(subject)), ("code", LabelValue::Owned(code.to_owned()))]);
        self.nats_requests.get_or_create(&labels).inc();
    }

    /// Reads all metrics and encodes them as text.
    pub(crate) fn render(&self, app: &App) -> Result<String, fmt::Error> {
        self.metrics.read(app);
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Sets a counter to a number that is counted elsewhere.
fn set_counter(counter: &Counter, count: u64) {
    counter.inner().store(count, Ordering::Relaxed);
}

fn to_i64<T: TryInto<i64>>(count: T) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}
