//! The report of `boxoffice doctor` about one dependency.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::cli::print_output;

/// JSON member for the number of ledger entries that are not recorded as published over NATS.
pub(super) const UNPUBLISHED: &str = "unpublishedEntries";

/// The result of checking one dependency.
pub(super) struct DependencyReport {
    pub(super) name: &'static str,
    pub(super) address: String,
    /// Duration of one round trip; `None` if it did not respond.
    pub(super) round_trip: Option<Duration>,
    /// Properties for the text report.
    pub(super) facts: Vec<(&'static str, String)>,
    /// Properties for the JSON report.
    pub(super) details: Map<String, Value>,
    pub(super) problems: Vec<Problem>,
}

/// A problem and the next step to fix it.
pub(super) struct Problem {
    problem: String,
    next_step: String,
}

impl Problem {
    pub(super) fn new(problem: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self { problem: problem.into(), next_step: next_step.into() }
    }
}

impl DependencyReport {
    pub(super) fn as_json(&self) -> Value {
        let problem = |problem: &Problem| json!({"problem": problem.problem, "nextStep": problem.next_step});
        let mut all = self.details.clone();
        all.insert("name".into(), json!(self.name));
        all.insert("address".into(), json!(self.address));
        all.insert("reachable".into(), json!(self.round_trip.is_some()));
        all.insert("roundTripMillis".into(), json!(self.round_trip.map(millis)));
        all.insert("problems".into(), self.problems.iter().map(problem).collect());
        Value::Object(all)
    }

    pub(super) fn print(&self) {
        let status = match (self.round_trip, self.problems.is_empty()) {
            (None, _) => "unreachable",
            (Some(_), false) => "problems found",
            (Some(_), true) => "ok",
        };
        print_output(format_args!("{}: {status} ({})", self.name, self.address));
        for (name, value) in &self.facts {
            print_output(format_args!("  {name:12}{value}"));
        }
        if let Some(round_trip) = self.round_trip {
            print_output(format_args!("  {:12}{:.2} ms", "round trip", millis(round_trip)));
        }
        for problem in &self.problems {
            print_output(format_args!("- {}\n  next: {}", problem.problem, problem.next_step));
        }
    }
}

pub(super) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
