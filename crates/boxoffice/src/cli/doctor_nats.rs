//! The checks of `boxoffice doctor` for NATS.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream::Info;
use engine::relay::StreamError;
use serde_json::{Map, json};
use tokio::time::{Instant, timeout};

use super::Failure;
use super::doctor::{Dependency, Problem};
use crate::config::Nats;
use crate::nats::connection_error::LastError;
use crate::nats::{Address, stream};

/// Longest wait for a connection to NATS, and for a reply.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// Checks a NATS server. Changes nothing.
pub(super) async fn nats(config: &Nats, address: &Address) -> Result<Dependency, Failure> {
    let connection_error = Arc::new(LastError::default());
    let options = crate::nats::options(config, address, &connection_error).await;
    let options = options.map_err(|error| Failure::Failed(error.to_string()))?;
    let mut dependency = Dependency {
        name: "nats",
        address: address.to_string(),
        round_trip: None,
        facts: Vec::new(),
        details: Map::new(),
        problems: Vec::new(),
    };
    match timeout(WAIT_MAX, crate::nats::connect(options, address)).await {
        Ok(Ok(client)) => check(client, config.replicas, &mut dependency).await,
        Ok(Err(error)) => dependency.problems.push(unreachable(&error.to_string())),
        Err(_) => dependency.problems.push(unreachable("timed out")),
    }
    if let Some(reason) = connection_error.reason() {
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

async fn check(client: async_nats::Client, replicas: usize, dependency: &mut Dependency) {
    let began = Instant::now();
    let is_responding = matches!(timeout(WAIT_MAX, client.flush()).await, Ok(Ok(())));
    dependency.round_trip = is_responding.then(|| began.elapsed());
    let info = client.server_info();
    dependency.facts.push(("version", format!("NATS {}", info.version)));
    dependency.details.insert("version".to_owned(), json!(format!("NATS {}", info.version)));
    dependency.details.insert("maxPayloadBytes".to_owned(), json!(info.max_payload));
    match stream::find(&stream::context(client)).await {
        Ok(Some(stream)) => {
            dependency.problems.extend(replication(stream.cached_info(), replicas));
            let (state, config) = (&stream.cached_info().state, &stream.cached_info().config);
            let stream = format!("{} messages, {} replicas", state.messages, config.num_replicas);
            dependency.facts.push(("stream", stream));
            dependency.details.insert("streamMessages".to_owned(), json!(state.messages));
            dependency.details.insert("streamReplicas".to_owned(), json!(config.num_replicas));
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
fn replication(info: &Info, wanted: usize) -> Vec<Problem> {
    let mut problems = Vec::new();
    let count = info.config.num_replicas;
    if count < wanted {
        problems.push(Problem::new(
            format!("the stream has {count} replica, but --nats-replicas is {wanted}"),
            format!("run `nats stream edit {} --replicas {wanted}`", info.config.name),
        ));
    }
    let Some(cluster) = &info.cluster else { return problems };
    if cluster.leader.is_none() {
        problems.push(Problem::new(
            "the stream has no leader",
            "start its servers: more than half must run; until then unpublished entries stay in the ledger",
        ));
    }
    for replica in cluster.replicas.iter().filter(|replica| replica.offline || !replica.current) {
        let state = if replica.offline { "offline" } else { "not current" };
        let lag = replica.lag.unwrap_or_default();
        problems.push(Problem::new(
            format!("the replica of the stream on {} is {state}, {lag} operations behind", replica.name),
            "check that server; until the replica is current, losing another server can stop the stream",
        ));
    }
    problems
}
