//! What `boxoffice doctor` looks at on a NATS.

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

/// How long NATS may take to let somebody in.
const PATIENCE: Duration = Duration::from_secs(3);

/// Looks at a NATS. Changes nothing.
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
    match timeout(PATIENCE, crate::nats::connect(options, address)).await {
        Ok(Ok(client)) => look(client, config.replicas, &mut dependency).await,
        Ok(Err(error)) => dependency.problems.push(unreachable(&error.to_string())),
        Err(_) => dependency.problems.push(unreachable("no answer in time")),
    }
    if let Some(reason) = connection_error.reason() {
        dependency.problems.push(Problem::new(
            format!("NATS refuses: {reason}"),
            "give the user of boxoffice the rights that docs/operations.md lists",
        ));
    }
    Ok(dependency)
}

fn unreachable(why: &str) -> Problem {
    Problem::new(
        format!("NATS cannot be reached: {why}"),
        "check the address, the credentials, and that it runs; until then no request comes in over NATS, and messages \
         wait in the ledger",
    )
}

async fn look(client: async_nats::Client, replicas: usize, dependency: &mut Dependency) {
    let began = Instant::now();
    let is_answered = matches!(timeout(PATIENCE, client.flush()).await, Ok(Ok(())));
    dependency.round_trip = is_answered.then(|| began.elapsed());
    let about = client.server_info();
    dependency.facts.push(("version", format!("NATS {}", about.version)));
    dependency.details.insert("version".to_owned(), json!(format!("NATS {}", about.version)));
    dependency.details.insert("maxPayloadBytes".to_owned(), json!(about.max_payload));
    match stream::find(&stream::context(client)).await {
        Ok(Some(stream)) => {
            dependency.problems.extend(replication(stream.cached_info(), replicas));
            let (state, config) = (&stream.cached_info().state, &stream.cached_info().config);
            let stream = format!("{} messages, {} replicas", state.messages, config.num_replicas);
            dependency.facts.push(("stream", stream));
            dependency.details.insert("streamMessages".to_owned(), json!(state.messages));
            dependency.details.insert("streamReplicas".to_owned(), json!(config.num_replicas));
        }
        Ok(None) => dependency.facts.push(("stream", "none yet; `boxoffice serve` makes it".to_owned())),
        Err(StreamError::Operator(what)) => dependency
            .problems
            .push(Problem::new(what, "until then messages wait in the ledger; sales and requests go on")),
        Err(other) => dependency.problems.push(Problem::new(
            other.to_string(),
            "look at the servers of NATS; until the stream answers, messages wait in the ledger",
        )),
    }
}

/// What is wrong with the replicas of the stream, each with the next step.
fn replication(info: &Info, wanted: usize) -> Vec<Problem> {
    let mut problems = Vec::new();
    let count = info.config.num_replicas;
    if count < wanted {
        problems.push(Problem::new(
            format!("the stream has {count} replica, and --nats-replicas says {wanted}"),
            format!("`nats stream edit {} --replicas {wanted}`", info.config.name),
        ));
    }
    let Some(cluster) = &info.cluster else { return problems };
    if cluster.leader.is_none() {
        problems.push(Problem::new(
            "the stream has no leader",
            "start its servers: more than half of them must run; until then messages wait in the ledger",
        ));
    }
    for replica in cluster.replicas.iter().filter(|replica| replica.offline || !replica.current) {
        let state = if replica.offline { "offline" } else { "not current" };
        let lag = replica.lag.unwrap_or_default();
        problems.push(Problem::new(
            format!("the replica of the stream on {} is {state}, {lag} operations behind", replica.name),
            "look at that server; until it is current, the loss of another one may stop the stream",
        ));
    }
    problems
}
