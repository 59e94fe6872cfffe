//! The checks of `boxoffice doctor` for NATS.

use engine::relay::StreamError;
use nats::{ServerInspection, Settings, StreamInspection};
use serde_json::{Map, json};

use super::report::{DependencyReport, Problem};
use crate::cli::Failure;

/// Checks a NATS server. Changes nothing.
pub(super) async fn nats(settings: &Settings) -> Result<DependencyReport, Failure> {
    let inspection = nats::inspect(settings).await;
    let inspection = inspection.map_err(|error| Failure::Failed(error.to_string()))?;
    let mut dependency = DependencyReport {
        name: "nats",
        address: settings.address.to_string(),
        round_trip: None,
        facts: Vec::new(),
        details: Map::new(),
        problems: Vec::new(),
    };
    match inspection.server {
        Ok(server) => describe(server, settings.replicas, &mut dependency),
        Err(why) => dependency.problems.push(unreachable(&why)),
    }
    if let Some(reason) = inspection.reported_error {
        dependency.problems.push(Problem::new(
            format!("NATS reports an error: {reason}"),
            "grant the NATS user of boxoffice the permissions listed in docs/operations.md",
        ));
    }
    Ok(dependency)
}

fn unreachable(why: &str) -> Problem {
    Problem::new(
        format!("NATS cannot be reached: {why}"),
        "check the address, the credentials, and that NATS is running; until then there are no requests over \
         NATS, and unpublished entries stay in the ledger",
    )
}

fn describe(server: ServerInspection, replicas: usize, dependency: &mut DependencyReport) {
    dependency.round_trip = server.round_trip;
    dependency.facts.push(("version", format!("NATS {}", server.version)));
    dependency.details.insert("version".to_owned(), json!(format!("NATS {}", server.version)));
    dependency.details.insert("maxPayloadBytes".to_owned(), json!(server.payload_bytes_max));
    match server.stream {
        Ok(Some(stream)) => {
            dependency.problems.extend(replication(&stream, replicas));
            let fact = format!("{} messages, {} replicas", stream.messages, stream.replicas);
            dependency.facts.push(("stream", fact));
            dependency.details.insert("streamMessages".to_owned(), json!(stream.messages));
            dependency.details.insert("streamReplicas".to_owned(), json!(stream.replicas));
        }
        Ok(None) => dependency.facts.push(("stream", "none yet; `boxoffice serve` creates it".to_owned())),
        Err(StreamError::NeedsOperator(problem)) => dependency.problems.push(Problem::new(
            problem,
            "until this is fixed, entries stay unpublished in the ledger; sales and requests continue",
        )),
        Err(other) => dependency.problems.push(Problem::new(
            other.to_string(),
            "check the NATS servers; until the stream responds, unpublished entries stay in the ledger",
        )),
    }
}

/// Returns the problems with the replicas of the stream.
fn replication(stream: &StreamInspection, wanted: usize) -> Vec<Problem> {
    let mut problems = Vec::new();
    let count = stream.replicas;
    if count < wanted {
        problems.push(Problem::new(
            format!("the stream has {count} replica, but --nats-replicas is {wanted}"),
            format!("run `nats stream edit {} --replicas {wanted}`", stream.name),
        ));
    }
    if !stream.has_leader {
        problems.push(Problem::new(
            "the stream has no leader",
            "start its servers: more than half must run; until then unpublished entries stay in the ledger",
        ));
    }
    for replica in &stream.lagging {
        let state = if replica.is_offline { "offline" } else { "not current" };
        let (server, lag) = (&replica.server, replica.lag);
        problems.push(Problem::new(
            format!("the replica of the stream on {server} is {state}, {lag} operations behind"),
            "check that server; until the replica is current, losing another server can stop the stream",
        ));
    }
    problems
}
