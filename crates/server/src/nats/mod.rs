//! NATS: requests in, messages out. The same engine as behind `http/`, for programs that speak NATS.
//!
//! NATS tells others what the ledger already says, and brings requests that may as well come over HTTP: the
//! service starts, sells and stops without it.

pub(crate) mod asyncapi;
mod bell;
mod bookings;
mod call;
mod decimal;
mod message;
mod reply;
mod service;
pub(crate) mod stream;
mod subject;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use engine::relay::Relay;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::config::NatsAddress;
use crate::limit::NATS_FLUSH_WAIT_MAX;

pub(crate) use self::service::serve;

/// Where answers to this program's own requests arrive: a prefix that others need no right to listen on.
const INBOX: &str = "_INBOX_boxoffice";
/// How often a silent connection is asked whether it lives: two unanswered, and it is made anew.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Longest pause between two attempts to connect.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);

/// The connection to NATS, which may be away.
pub(crate) struct Nats {
    client: Client,
    address: String,
    pub(crate) relay: Arc<Relay>,
}

/// Why NATS cannot be used as it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// The file cannot be read, or holds no credentials.
    #[error("--nats-creds: {0}")]
    Credentials(#[source] std::io::Error),
    /// No connection can be attempted.
    #[error("--nats: {0}")]
    Connect(#[from] async_nats::ConnectError),
}

impl Nats {
    /// Begins to connect, and goes on trying for as long as the program runs.
    pub(crate) async fn start(
        config: &crate::config::Nats,
        address: &NatsAddress,
    ) -> Result<Self, SetupError> {
        let options = options(config).await?.retry_on_initial_connect();
        Ok(Self {
            client: options.connect(address.servers()).await?,
            address: address.public(),
            relay: Arc::default(),
        })
    }

    /// The connection itself.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Whether it is connected now.
    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// What is wrong, in a sentence; nothing where all is well.
    pub(crate) fn trouble(&self) -> Option<String> {
        if self.is_connected() {
            self.relay.standing().trouble
        } else {
            Some("NATS is not reachable".to_owned())
        }
    }

    /// How it is getting on, for `/readyz?verbose`.
    pub(crate) fn describe(&self) -> Value {
        let relay = self.relay.standing();
        json!({
            "status": self.trouble().unwrap_or_else(|| "ok".to_owned()),
            "relay": {
                "status": relay.trouble.as_deref().unwrap_or("ok"),
                "fills": relay.fills,
                "behind": relay.behind,
                "lagMillis": relay.lag_micros / 1_000,
            },
        })
    }

    /// Sends what still waits to be sent, within a bound.
    pub(crate) async fn flush(&self) {
        if self.is_connected()
            && !matches!(timeout(NATS_FLUSH_WAIT_MAX, self.client.flush()).await, Ok(Ok(())))
        {
            tracing::warn!(nats = self.address, "the last messages may not have reached NATS");
        }
    }
}

/// How every connection is made.
pub(crate) async fn options(config: &crate::config::Nats) -> Result<ConnectOptions, SetupError> {
    let options = match &config.creds {
        Some(file) => ConnectOptions::with_credentials_file(file).await.map_err(SetupError::Credentials)?,
        None => ConnectOptions::new(),
    };
    let pause = |attempts: usize| {
        let exponent = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(5);
        RECONNECT_PAUSE_MAX.min(Duration::from_millis(100) * 2_u32.pow(exponent))
    };
    Ok(options
        .name("boxoffice")
        .custom_inbox_prefix(INBOX)
        .ping_interval(PING_EVERY)
        .reconnect_delay_callback(pause)
        .event_callback(async |event| match event {
            Event::Connected => tracing::info!("NATS is connected"),
            Event::Disconnected => tracing::warn!("NATS is away; going on without until it is back"),
            Event::SlowConsumer(_) => tracing::error!("requests over NATS were dropped: too many at once"),
            other => tracing::debug!(event = %other, "NATS"),
        }))
}

/// Reads the addresses of one cluster, separated by commas.
pub(crate) fn parse_servers(text: &str) -> Result<Vec<ServerAddr>, String> {
    let server = |text: &str| {
        let address = ServerAddr::from_str(text.trim()).map_err(|error| error.to_string())?;
        match address.scheme() {
            "nats" | "tls" => Ok(address),
            _ => Err("must be nats://… or tls://…".to_owned()),
        }
    };
    text.split(',').map(server).collect()
}
