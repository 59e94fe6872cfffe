//! What `boxoffice doctor` looks at on a NATS.

use std::sync::Arc;
use std::time::Duration;

use engine::relay::Trouble;
use serde_json::{Map, json};
use tokio::time::{Instant, timeout};

use super::Failure;
use super::doctor::{Dependency, Problem};
use crate::config::Nats;
use crate::nats::objection::Objection;
use crate::nats::{Address, stream};

/// How long NATS may take to let somebody in.
const PATIENCE: Duration = Duration::from_secs(3);

/// Looks at a NATS. Changes nothing.
pub(super) async fn nats(config: &Nats, address: &Address) -> Result<Dependency, Failure> {
    let objection = Arc::new(Objection::default());
    let options = crate::nats::options(config, address, &objection).await;
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
        Ok(Ok(client)) => look(client, &mut dependency).await,
        Ok(Err(error)) => dependency.problems.push(unreachable(&error.to_string())),
        Err(_) => dependency.problems.push(unreachable("no answer in time")),
    }
    if let Some(reason) = objection.reason() {
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

async fn look(client: async_nats::Client, dependency: &mut Dependency) {
    let began = Instant::now();
    let is_answered = matches!(timeout(PATIENCE, client.flush()).await, Ok(Ok(())));
    dependency.round_trip = is_answered.then(|| began.elapsed());
    let about = client.server_info();
    dependency.facts.push(("version", format!("NATS {}", about.version)));
    dependency.details.insert("version".to_owned(), json!(format!("NATS {}", about.version)));
    dependency.details.insert("maxPayloadBytes".to_owned(), json!(about.max_payload));
    match stream::open(&stream::context(client), false).await {
        Ok(Some(stream)) => {
            let (state, config) = (&stream.cached_info().state, &stream.cached_info().config);
            let stream = format!("{} messages, {} replicas", state.messages, config.num_replicas);
            dependency.facts.push(("stream", stream));
            dependency.details.insert("streamMessages".to_owned(), json!(state.messages));
            dependency.details.insert("streamReplicas".to_owned(), json!(config.num_replicas));
        }
        Ok(None) => dependency.facts.push(("stream", "none yet; `boxoffice serve` makes it".to_owned())),
        Err(Trouble::Operator(what)) => dependency
            .problems
            .push(Problem::new(what, "until then messages wait in the ledger; sales and requests go on")),
        Err(other) => dependency.problems.push(unreachable(&other.to_string())),
    }
}
