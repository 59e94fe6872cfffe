//! The metrics of the program, as `/metrics` serves them. Each part reads its own numbers when they are
//! encoded.

use std::fmt;
use std::sync::Arc;

use api::App;
use api::metrics::{MetricsEncoder, gauge};
use http_api::HttpMetrics;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::log;

/// A metric with one label.
type Labelled<M> = Family<[(&'static str, &'static str); 1], M>;

/// Returns the registry of all metrics.
pub(crate) fn registry(app: App, http: Arc<HttpMetrics>) -> Registry {
    let mut registry = Registry::default();
    let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("boxoffice_build", "Version of the program", build);
    registry.register_collector(Box::new(Metrics { app, http }));
    registry
}

/// The metrics of all parts of the program.
struct Metrics {
    app: App,
    http: Arc<HttpMetrics>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut metrics = MetricsEncoder::new(encoder);
        self.http.encode(&mut metrics)?;
        self.encode_engine(&mut metrics)?;
        self.encode_tasks(&mut metrics)?;
        self.app.dependencies.iter().try_for_each(|dependency| dependency.encode_metrics(&mut metrics))
    }
}

impl Metrics {
    fn encode_engine(&self, metrics: &mut MetricsEncoder<'_>) -> fmt::Result {
        let (engine, desk) = (&self.app.engine, self.app.engine.desk_stats());
        metrics.encode("boxoffice_queue_length", "Commands in the desk's queue", &gauge(desk.waiting))?;
        let reads = Labelled::<Gauge>::default();
        for (callers, waiting) in engine.reads_waiting() {
            reads.get_or_create(&[("callers", callers)]).set(i64::try_from(waiting).unwrap_or(i64::MAX));
        }
        metrics.encode("boxoffice_reads_waiting", "Reads in the queue, by kind of callers", &reads)?;
        metrics.encode("boxoffice_batches", "Batches executed", &ConstCounter::new(desk.batches))?;
        let help = "Commands in executed batches";
        metrics.encode("boxoffice_commands", help, &ConstCounter::new(desk.commands))?;
        let help = "Jumps of this machine's clock by more than a minute";
        metrics.encode("boxoffice_clock_jumps", help, &ConstCounter::new(engine.clock_jumps()))?;
        let chores = Labelled::<Gauge>::default();
        for chore in engine.chores() {
            let success = chore.last_success().micros() / 1_000_000;
            chores.get_or_create(&[("chore", chore.name())]).set(success);
        }
        let help = "Time of a background chore's last success";
        metrics.encode_seconds("boxoffice_chore_last_success_timestamp", help, &chores)
    }

    fn encode_tasks(&self, metrics: &mut MetricsEncoder<'_>) -> fmt::Result {
        let (up, restarts) = (Labelled::<Gauge>::default(), Labelled::<Counter>::default());
        for task in self.app.tasks() {
            let label = [("task", task.name())];
            up.get_or_create(&label).set((!task.is_down()).into());
            restarts.get_or_create(&label).inc_by(task.restarts());
        }
        let help = "1 while a background task runs, 0 between a panic and the restart";
        metrics.encode("boxoffice_task_up", help, &up)?;
        let help = "Panics of a background task, each followed by a restart";
        metrics.encode("boxoffice_task_restarts", help, &restarts)?;
        let help = "Panics in any task or thread";
        metrics.encode("boxoffice_panics", help, &ConstCounter::new(log::panics()))?;
        let help = "Log lines that could not be written";
        metrics.encode("boxoffice_log_lines_lost", help, &ConstCounter::new(log::lines_lost()))
    }
}
