//! Inspection of a NATS server from outside, for `doctor`. It changes nothing.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::stream::Info;
use engine::relay::StreamError;
use tokio::time::{Instant, timeout};

use crate::connection_error::LastError;
use crate::limit::INSPECT_WAIT_MAX;
use crate::settings::{Settings, SetupError};
use crate::stream;

/// The state of a NATS server.
pub struct Inspection {
    /// The server, or the reason why it cannot be reached.
    pub server: Result<ServerInspection, String>,
    /// The error that the server reports about this user.
    pub reported_error: Option<String>,
}

/// The state of a server that can be reached.
pub struct ServerInspection {
    /// The version of the server.
    pub version: String,
    /// The largest message that it accepts, in bytes.
    pub payload_bytes_max: usize,
    /// Duration of one round trip; `None` if the server did not respond.
    pub round_trip: Option<Duration>,
    /// The stream; `None` if it does not exist.
    pub stream: Result<Option<StreamInspection>, StreamError>,
}

/// The state of the stream.
pub struct StreamInspection {
    /// Its name.
    pub name: String,
    /// Number of its messages.
    pub messages: u64,
    /// Number of its replicas.
    pub replicas: usize,
    /// False if it is in a cluster and has no leader.
    pub has_leader: bool,
    /// The replicas that are behind the leader.
    pub lagging: Vec<LaggingReplica>,
}

/// A replica that is behind the leader.
pub struct LaggingReplica {
    /// The server of the replica.
    pub server: String,
    /// True if that server is offline.
    pub is_offline: bool,
    /// Number of operations by which it is behind.
    pub lag: u64,
}

/// Inspects a server.
pub async fn inspect(settings: &Settings) -> Result<Inspection, SetupError> {
    let connection_error = Arc::new(LastError::default());
    let options = settings.options(&connection_error).await?;
    let server = match timeout(INSPECT_WAIT_MAX, settings.connect(options)).await {
        Ok(Ok(client)) => Ok(inspect_server(client).await),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("timed out".to_owned()),
    };
    Ok(Inspection { server, reported_error: connection_error.reason() })
}

async fn inspect_server(client: Client) -> ServerInspection {
    let began = Instant::now();
    let is_responding = matches!(timeout(INSPECT_WAIT_MAX, client.flush()).await, Ok(Ok(())));
    let round_trip = is_responding.then(|| began.elapsed());
    let info = client.server_info();
    let stream = stream::find(&stream::context(client)).await;
    ServerInspection {
        version: info.version,
        payload_bytes_max: info.max_payload,
        round_trip,
        stream: stream.map(|stream| stream.map(|stream| describe(stream.cached_info()))),
    }
}

fn describe(info: &Info) -> StreamInspection {
    let cluster = info.cluster.as_ref();
    let replicas = cluster.into_iter().flat_map(|cluster| &cluster.replicas);
    let lagging = replicas.filter(|replica| replica.offline || !replica.current);
    StreamInspection {
        name: info.config.name.clone(),
        messages: info.state.messages,
        replicas: info.config.num_replicas,
        has_leader: cluster.is_none_or(|cluster| cluster.leader.is_some()),
        lagging: lagging
            .map(|replica| LaggingReplica {
                server: replica.name.clone(),
                is_offline: replica.offline,
                lag: replica.lag.unwrap_or_default(),
            })
            .collect(),
    }
}
