//! The report of a run, as text and JSON.

use std::fmt::{self, Write as _};
use std::time::Duration;

use hdrhistogram::Histogram;
use hyper::Method;
use serde_json::{Map, Value, json};

use crate::cpu;
use crate::plan::{Load, Pace};
use crate::tally::Counts;

/// The report of a run.
pub struct Report {
    pub(crate) load: Load,
    pub(crate) counts: Counts,
    /// Time from the start of the measurement to the last response.
    pub(crate) counted: Duration,
    pub(crate) before: Sample,
    pub(crate) after: Sample,
    pub(crate) counter_check: CounterCheck,
}

/// The comparison of the servers' counters with their responses.
#[derive(Default)]
pub(crate) struct CounterCheck {
    /// Number of tickets sold beyond the capacity, over all events.
    pub(crate) oversold: u64,
    /// Number of tickets by which counters and responses differ, over all events.
    pub(crate) difference: u64,
    /// Number of changes with an unknown outcome.
    pub(crate) unknown: u64,
    /// True if counters and responses can be compared; false if holds may have expired during the run.
    pub(crate) comparable: bool,
}

impl CounterCheck {
    fn is_correct(&self) -> bool {
        self.oversold == 0 && (!self.comparable || self.difference <= self.unknown)
    }
}

/// CPU time of the processes and batch counters of the servers at one instant.
pub(crate) struct Sample {
    cpu: Vec<(String, f64)>,
    batches: f64,
    commands: f64,
}

impl Sample {
    /// Reads CPU times and metrics. A server whose metrics are not available on its address counts as zero.
    pub(crate) async fn take(load: &Load) -> Self {
        let mut sample = Self { cpu: Vec::new(), batches: 0.0, commands: 0.0 };
        for number in 0..load.targets.len() {
            let Ok(mut client) = load.admin(number) else { continue };
            let Ok(response) = client.request(Method::GET, "/metrics", None).await else { continue };
            let text = String::from_utf8_lossy(&response.body);
            sample.batches += metric(&text, "boxoffice_batches_total");
            sample.commands += metric(&text, "boxoffice_commands_total");
        }
        sample.cpu = cpu::seconds(&load.pids);
        sample
            .cpu
            .extend(cpu::seconds(&[std::process::id()]).into_iter().map(|(_, used)| ("bench".into(), used)));
        sample
    }
}

/// Returns the value of a metric without labels; 0 if it is missing.
fn metric(text: &str, name: &str) -> f64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(value).unwrap_or(0.0)
}

impl Report {
    /// Returns true if every request got a response and the counters are correct.
    pub fn is_good(&self) -> bool {
        self.counter_check.is_correct() && self.counts.broken.is_empty() && self.counts.dropped == 0
    }

    fn per_second(&self, histogram: &Histogram<u64>) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a run has fewer requests than 53 bits can count")]
        let count = histogram.len() as f64;
        count / self.counted.as_secs_f64()
    }

    /// Returns each kind of response with its name and latencies.
    fn rows(&self) -> impl Iterator<Item = (&str, &Histogram<u64>)> {
        let done = self.counts.done.iter().map(|(step, histogram)| (step.name(), histogram));
        done.chain(self.counts.refused.iter().map(|(code, histogram)| (code.as_str(), histogram)))
    }

    /// Returns the number of responses.
    fn responses(&self) -> u64 {
        self.rows().map(|(_, histogram)| histogram.len()).sum()
    }

    /// Returns the CPU time per response of each process, in microseconds.
    fn cpu_micros(&self) -> Vec<(&str, f64)> {
        #[expect(clippy::cast_precision_loss, reason = "a run has fewer requests than 53 bits can count")]
        let responses = self.responses().max(1) as f64;
        let used = self.before.cpu.iter().zip(&self.after.cpu);
        used.map(|((_, before), (name, after))| (name.as_str(), (after - before) * 1e6 / responses)).collect()
    }

    /// Returns the average number of commands per batch; `None` if no server reports it.
    fn batch_size(&self) -> Option<f64> {
        let batches = self.after.batches - self.before.batches;
        (batches > 0.0).then(|| (self.after.commands - self.before.commands) / batches)
    }

    /// Returns the report as JSON. Latencies are in milliseconds, rates per second, and CPU time in
    /// microseconds per response.
    pub fn as_json(&self) -> Value {
        let row = |(name, histogram): (&str, &Histogram<u64>)| {
            let mut row = Map::from_iter([
                ("count".to_owned(), json!(histogram.len())),
                ("perSecond".to_owned(), json!(self.per_second(histogram).round())),
            ]);
            row.extend(quantiles(histogram).map(|(name, millis)| (name.to_owned(), json!(millis))));
            (name.to_owned(), Value::Object(row))
        };
        let Counts { broken, late, dropped, .. } = &self.counts;
        let CounterCheck { oversold, difference, unknown, comparable } = &self.counter_check;
        let rate = match self.load.pace {
            Pace::Closed => None,
            Pace::Open { per_second } => Some(per_second),
        };
        json!({
            "targets": self.load.targets.iter().map(|target| format!("http://{target}")).collect::<Vec<_>>(),
            "connections": self.load.connections, "rate": rate, "events": self.load.events,
            "mix": self.load.mix.to_string(), "seconds": self.counted.as_secs_f64(),
            "responses": self.rows().map(row).collect::<Map<_, _>>(),
            "broken": broken, "lateMillis": millis(*late), "dropped": dropped,
            "batchSize": self.batch_size(),
            "cpuMicros": self.cpu_micros(),
            "counters": {
                "match": self.counter_check.is_correct(), "oversold": oversold, "difference": difference,
                "unknown": unknown, "comparable": comparable,
            },
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (load, counts) = (&self.load, &self.counts);
        let pace = match load.pace {
            Pace::Closed => "closed loop".to_owned(),
            Pace::Open { per_second } => format!("{per_second} requests/s"),
        };
        writeln!(f, "{} connections, {pace}, {} events, {}", load.connections, load.events, load.mix)?;
        writeln!(f, "{:24}{:>10}{:>10}  p50, p90, p99, p99.9, max in ms", "", "responses", "per s")?;
        for (name, histogram) in self.rows() {
            let times = quantiles(histogram).fold(String::new(), |mut text, (_, millis)| {
                let _ = write!(text, "{millis:>9.1}");
                text
            });
            writeln!(f, "{name:24}{:>10}{:>10.0}{times}", histogram.len(), self.per_second(histogram))?;
        }
        for (cause, count) in &counts.broken {
            writeln!(f, "{:24}{count:>10}  {cause}", "no response")?;
        }
        if let Pace::Open { .. } = load.pace {
            let late = millis(counts.late);
            writeln!(f, "schedule: at most {late} ms late, {} requests dropped", counts.dropped)?;
        }
        if let Some(size) = self.batch_size() {
            writeln!(f, "{size:.1} commands per batch on average")?;
        }
        for (name, micros) in self.cpu_micros() {
            writeln!(f, "{name}: {micros:.1} µs of CPU time per response")?;
        }
        let CounterCheck { oversold, difference, unknown, comparable } = &self.counter_check;
        match (self.counter_check.is_correct(), comparable) {
            (true, true) => write!(f, "counters match the responses; oversold 0, unknown {unknown}"),
            (true, false) => {
                write!(f, "oversold 0; holds may have expired, so the counters were not compared further")
            }
            (false, _) => {
                write!(f, "WRONG: oversold {oversold}, counters differ by {difference}, unknown {unknown}")
            }
        }
    }
}

/// Returns the reported quantiles of a latency, in milliseconds.
fn quantiles(histogram: &Histogram<u64>) -> impl Iterator<Item = (&'static str, f64)> {
    let at = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
    at.into_iter()
        .map(|(name, part)| (name, millis(Duration::from_micros(histogram.value_at_quantile(part)))))
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 100_000.0).round() / 100.0
}
