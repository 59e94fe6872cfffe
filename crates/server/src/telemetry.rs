//! What the program tells its operators: metrics in the text format of Prometheus (`OpenMetrics` 1.0).
//!
//! Labels are words of the program, never ids: their number is bounded whatever users send.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelSetEncoder, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::http::App;
use crate::log;
use crate::shared::Shared;

/// The media type of what [`Telemetry::render`] writes.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Metrics of one running service.
pub(crate) struct Telemetry {
    registry: Registry,
    requests: Family<Words<3>, Histogram, fn() -> Histogram>,
    problems: Family<Words<1>, Counter>,
    over_nats: Family<Words<2>, Counter>,
    gauges: Gauges,
}

/// What is looked up when somebody asks.
struct Gauges {
    waiting: Gauge,
    reads_waiting: Family<Words<1>, Gauge>,
    batches: Gauge,
    commands: Gauge,
    unleased: Gauge,
    streams: Gauge,
    clock_jumps: Gauge,
    chores: Family<Words<1>, Gauge>,
    redis: Family<Words<1>, Gauge>,
    redis_up: Gauge,
    limiter_fallbacks: Gauge,
    nats_up: Family<Words<0>, Gauge>,
    relay: Family<Words<1>, Gauge>,
    task_up: Family<Words<1>, Gauge>,
    task_restarts: Family<Words<1>, Counter>,
    panics: Counter,
    log_lines_lost: Counter,
}

/// A label set: names and values of fixed number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Words<const N: usize>([(&'static str, Word); N]);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Word {
    Fixed(&'static str),
    Route(String),
    Number(u16),
}

impl<const N: usize> EncodeLabelSet for Words<N> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Fixed(word) => word.encode(encoder),
            Self::Route(route) => route.as_str().encode(encoder),
            Self::Number(number) => u64::from(*number).encode(encoder),
        }
    }
}

/// From half a millisecond to eight seconds, doubling: the time that a request may wait for its turn and
/// what lies around it.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.0, 15))
}

impl Gauges {
    fn register_tasks(&self, registry: &mut Registry) {
        let help = "Whether a background task runs (1), or has panicked and waits for its restart (0)";
        registry.register("boxoffice_task_up", help, self.task_up.clone());
        let help = "Panics of a background task, each followed by a restart";
        registry.register("boxoffice_task_restarts", help, self.task_restarts.clone());
        registry.register("boxoffice_panics", "Panics in any task or thread", self.panics.clone());
        let help = "Log lines that could not be written";
        registry.register("boxoffice_log_lines_lost", help, self.log_lines_lost.clone());
    }

    fn read_tasks(&self, app: &App) {
        for task in app.tasks() {
            let labels = Words([("task", Word::Fixed(task.name()))]);
            self.task_up.get_or_create(&labels).set((!task.is_down()).into());
            set(&self.task_restarts.get_or_create(&labels), task.restarts());
        }
        set(&self.panics, log::panics());
        set(&self.log_lines_lost, log::lines_lost());
    }

    fn register_redis(&self, registry: &mut Registry) {
        let help = "What was done on Redis since the start, by kind; times in microseconds";
        registry.register("boxoffice_redis_events", help, self.redis.clone());
        let help = "How often an event's commands went without its lease since the start";
        registry.register("boxoffice_unleased", help, self.unleased.clone());
        let help = "Whether Redis is asked (1) or away (0)";
        registry.register("boxoffice_redis_up", help, self.redis_up.clone());
        let help = "Attempts since the start that Redis could not be asked about";
        registry.register("boxoffice_limiter_fallbacks", help, self.limiter_fallbacks.clone());
    }
}

impl Telemetry {
    /// Metrics that are all zero; those of Redis only where there is one.
    pub(crate) fn new(with_redis: bool) -> Self {
        let mut registry = Registry::default();
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("boxoffice_build", "The program that runs", build);
        let requests: Family<_, _, fn() -> Histogram> =
            Family::new_with_constructor(durations as fn() -> Histogram);
        let help = "Time to answer a request";
        registry.register_with_unit("http_server_request_duration", help, Unit::Seconds, requests.clone());
        let problems = Family::default();
        registry.register(
            "boxoffice_problems",
            "Requests that were refused or failed, by code",
            problems.clone(),
        );
        // Empty, and so not shown, where there is no NATS.
        let over_nats = Family::default();
        let help = "Requests over NATS, by subject and code; ok where it was a success";
        registry.register("boxoffice_nats_requests", help, over_nats.clone());
        let gauges = Gauges {
            waiting: Gauge::default(),
            reads_waiting: Family::default(),
            batches: Gauge::default(),
            commands: Gauge::default(),
            unleased: Gauge::default(),
            streams: Gauge::default(),
            clock_jumps: Gauge::default(),
            chores: Family::default(),
            redis: Family::default(),
            redis_up: Gauge::default(),
            limiter_fallbacks: Gauge::default(),
            nats_up: Family::default(),
            relay: Family::default(),
            task_up: Family::default(),
            task_restarts: Family::default(),
            panics: Counter::default(),
            log_lines_lost: Counter::default(),
        };
        for (name, help, gauge) in [
            ("boxoffice_queue_length", "Commands that wait for their turn", &gauges.waiting),
            ("boxoffice_batches", "Batches carried out since the start", &gauges.batches),
            ("boxoffice_batch_commands", "Commands in those batches", &gauges.commands),
            ("boxoffice_streams", "Live streams that are open", &gauges.streams),
            (
                "boxoffice_clock_jumps",
                "Jumps of this machine's clock by more than a minute since the start",
                &gauges.clock_jumps,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        let help = "Reads that wait for their turn, by kind of callers";
        registry.register("boxoffice_reads_waiting", help, gauges.reads_waiting.clone());
        let help = "When a background chore last finished without a fault";
        registry.register_with_unit(
            "boxoffice_chore_last_success_timestamp",
            help,
            Unit::Seconds,
            gauges.chores.clone(),
        );
        gauges.register_tasks(&mut registry);
        if with_redis {
            gauges.register_redis(&mut registry);
        }
        let help = "Whether NATS is connected (1) or away (0)";
        registry.register("boxoffice_nats_up", help, gauges.nats_up.clone());
        let help =
            "The relay: whether it fills the stream, entries behind, lag of the last, told since the start";
        registry.register("boxoffice_relay", help, gauges.relay.clone());
        Self { registry, requests, problems, over_nats, gauges }
    }

    /// Counts a request that was answered; `route` is the pattern it matched, not its path.
    pub(crate) fn answered(&self, method: &'static str, route: Option<&str>, status: u16, took: Duration) {
        let route = route.map_or(Word::Fixed("none"), |route| Word::Route(route.to_owned()));
        let labels = Words([
            ("http_request_method", Word::Fixed(method)),
            ("http_route", route),
            ("http_response_status_code", Word::Number(status)),
        ]);
        self.requests.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts a request that was refused or failed.
    pub(crate) fn refused(&self, code: &'static str) {
        self.problems.get_or_create(&Words([("code", Word::Fixed(code))])).inc();
    }

    /// Counts a request over NATS; `code` is a problem's, `ok`, or `dropped` where nobody waited any more.
    pub(crate) fn answered_over_nats(&self, subject: &'static str, code: &str) {
        let labels = Words([("subject", Word::Fixed(subject)), ("code", Word::Route(code.to_owned()))]);
        self.over_nats.get_or_create(&labels).inc();
    }

    /// Everything, as text.
    pub(crate) fn render(&self, app: &App) -> Result<String, fmt::Error> {
        let (pulse, gauges) = (app.engine.pulse(), &self.gauges);
        gauges.waiting.set(whole(pulse.waiting));
        for (callers, waiting) in app.engine.reads_waiting() {
            let labels = Words([("callers", Word::Fixed(callers))]);
            gauges.reads_waiting.get_or_create(&labels).set(whole(waiting));
        }
        gauges.batches.set(whole(pulse.batches));
        gauges.commands.set(whole(pulse.commands));
        gauges.unleased.set(whole(pulse.unleased));
        gauges.streams.set(whole(app.streams.count()));
        gauges.clock_jumps.set(whole(app.engine.clock_jumps()));
        gauges.read_tasks(app);
        for chore in app.engine.chores() {
            let labels = Words([("chore", Word::Fixed(chore.name()))]);
            gauges.chores.get_or_create(&labels).set(chore.last_success().micros() / 1_000_000);
        }
        if let Some(Shared { redis, limiter }) = app.redis.as_deref() {
            for (name, count) in redis.counts().iter() {
                gauges.redis.get_or_create(&Words([("kind", Word::Fixed(name))])).set(whole(count));
            }
            gauges.redis_up.set(redis.is_up().into());
            gauges.limiter_fallbacks.set(whole(limiter.helped()));
        }
        if let Some(nats) = &app.nats {
            gauges.nats_up.get_or_create(&Words([])).set(nats.is_connected().into());
            let standing = nats.relay.standing();
            let figures = [
                ("fills", i64::from(standing.fills)),
                ("behind", whole(standing.behind)),
                ("lag_microseconds", whole(standing.lag_micros)),
                ("told", whole(standing.told)),
                ("trouble", i64::from(standing.trouble.is_some())),
                ("waiting_seconds", whole(standing.waiting_seconds)),
            ];
            for (figure, value) in figures {
                gauges.relay.get_or_create(&Words([("figure", Word::Fixed(figure))])).set(value);
            }
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Shows what is counted elsewhere.
fn set(counter: &Counter, count: u64) {
    counter.inner().store(count, Ordering::Relaxed);
}

fn whole<T: TryInto<i64>>(count: T) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}
