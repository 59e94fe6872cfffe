//! The NATS gateway: request/reply on the engine that also serves HTTP, and publication of the ledgers.
//!
//! The subjects of requests, their field names and the notifications are those of an earlier MongoDB booking
//! service. NATS is optional: messages only repeat the ledger, and every request is also available over HTTP.
//! So the program starts, sells and stops without NATS.

mod address;
pub(crate) mod asyncapi;
mod bookings;
pub(crate) mod connection_error;
mod decimal;
mod event_bus;
mod message;
mod reply;
mod request;
mod service;
pub(crate) mod stream;
mod subject;

use std::future::ready;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::rustls::pki_types::CertificateDer;
use async_nats::rustls::pki_types::pem::PemObject as _;
use async_nats::{Client, ConnectOptions};
use engine::relay::Relay;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::limit::NATS_FLUSH_WAIT_MAX;

pub(crate) use self::address::Address;
use self::connection_error::LastError;
pub(crate) use self::service::serve;

/// The subject prefix for replies to this program's own requests, so that other users need no permission on
/// it.
const INBOX: &str = "_INBOX_boxoffice";
/// Interval of pings on an idle connection. After two without a reply it is replaced.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Longest pause between two attempts to connect.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Pause before a client is replaced whose task in the library has terminated.
const REPLACE_PAUSE: Duration = Duration::from_secs(1);

/// The connection to NATS, which may be down.
pub(crate) struct Nats {
    config: crate::config::Nats,
    current: RwLock<Current>,
    address: Address,
    connection_error: Arc<LastError>,
    pub(crate) relay: Arc<Relay>,
}

/// The library's client, and a token that is cancelled when its task terminates. Only a panic in the library
/// does that.
#[derive(Clone)]
struct Current {
    client: Client,
    terminated: CancellationToken,
}

/// An error in the settings for NATS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// The file cannot be read or contains no credentials.
    #[error("--nats-creds: {0}")]
    Credentials(#[source] std::io::Error),
    /// The file cannot be read or contains no certificate.
    #[error("--nats-ca: {0}")]
    Authorities(String),
    /// The connection failed or cannot be attempted.
    #[error("{0}")]
    Connect(String),
}

impl Nats {
    /// Starts to connect in the background, and retries for as long as the program runs.
    pub(crate) async fn start(config: &crate::config::Nats, address: Address) -> Result<Self, SetupError> {
        let connection_error = Arc::default();
        let current = RwLock::new(start_client(config, &address, &connection_error).await?);
        Ok(Self { config: config.clone(), current, address, connection_error, relay: Arc::default() })
    }

    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the current client.
    pub(crate) fn client(&self) -> Client {
        self.current().client
    }

    /// Replaces the client whenever its task has terminated. Never returns.
    pub(crate) async fn keep_client(&self) {
        loop {
            self.current().terminated.cancelled().await;
            tracing::error!("the NATS client has terminated; creating a new one");
            sleep(REPLACE_PAUSE).await;
            match start_client(&self.config, &self.address, &self.connection_error).await {
                Ok(new) => *self.current.write().unwrap_or_else(PoisonError::into_inner) = new,
                Err(error) => tracing::error!(%error, "cannot create a NATS client"),
            }
        }
    }

    /// Returns true if NATS is connected.
    pub(crate) fn is_connected(&self) -> bool {
        let Current { client, terminated } = self.current();
        !terminated.is_cancelled() && client.connection_state() == State::Connected
    }

    /// Describes the error of the connection or the relay; `None` if there is none.
    pub(crate) fn error(&self) -> Option<String> {
        match (self.is_connected(), self.connection_error.reason()) {
            (true, Some(reason)) => Some(format!("NATS reports an error: {reason}")),
            (true, None) => self.relay.status().error,
            (false, Some(reason)) => Some(format!("no connection to NATS: {reason}")),
            (false, None) => Some("no connection to NATS".to_owned()),
        }
    }

    /// Returns the status for `/readyz?verbose`.
    pub(crate) fn status_json(&self) -> Value {
        let relay = self.relay.status();
        json!({
            "status": self.error().unwrap_or_else(|| "ok".to_owned()),
            "relay": {
                "status": relay.error.as_deref().unwrap_or("ok"),
                "active": relay.is_active,
                "pendingEntries": relay.pending,
                "lagMillis": relay.lag_micros / 1_000,
                "waitingSeconds": relay.waiting_seconds,
            },
        })
    }

    /// Flushes buffered messages, for at most [`NATS_FLUSH_WAIT_MAX`].
    pub(crate) async fn flush(&self) {
        if self.is_connected()
            && !matches!(timeout(NATS_FLUSH_WAIT_MAX, self.client().flush()).await, Ok(Ok(())))
        {
            tracing::warn!(nats = %self.address, "the last messages may not have reached NATS");
        }
    }
}

/// Creates a client that connects in the background.
async fn start_client(
    config: &crate::config::Nats,
    address: &Address,
    connection_error: &Arc<LastError>,
) -> Result<Current, SetupError> {
    let terminated = CancellationToken::new();
    // Dropped with the callback, which the library's task owns.
    let guard = terminated.clone().drop_guard();
    let delay = move |attempts| {
        let _guard = &guard;
        #[cfg(feature = "sabotage")]
        panic_on_demand();
        reconnect_delay(attempts)
    };
    let options = options(config, address, connection_error).await?;
    let options = options.retry_on_initial_connect().reconnect_delay_callback(delay);
    Ok(Current { client: connect(options, address).await?, terminated })
}

/// Panics in the task of the library if a test requests it.
#[cfg(feature = "sabotage")]
fn panic_on_demand() {
    static PANICS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    supervisor::sabotage::panic_if_requested("nats-library", &PANICS);
}

/// Returns the pause before an attempt to connect: exponential backoff from 100 ms to
/// [`RECONNECT_PAUSE_MAX`].
fn reconnect_delay(attempts: usize) -> Duration {
    let exponent = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(5);
    RECONNECT_PAUSE_MAX.min(Duration::from_millis(100) * 2_u32.pow(exponent))
}

/// Runs a callback and catches its panic, which would terminate the library's task.
fn catch_panic(callback: impl FnOnce()) {
    // The panic hook has logged the panic.
    let _ = catch_unwind(AssertUnwindSafe(callback));
}

/// Returns the options of every connection. Errors are recorded in `connection_error`.
pub(crate) async fn options(
    config: &crate::config::Nats,
    address: &Address,
    connection_error: &Arc<LastError>,
) -> Result<ConnectOptions, SetupError> {
    let mut options = match &config.creds {
        Some(file) => ConnectOptions::with_credentials_file(file).await.map_err(SetupError::Credentials)?,
        None => ConnectOptions::new(),
    };
    if let Some(file) = &config.ca {
        check_authorities(file).map_err(SetupError::Authorities)?;
        options = options.add_root_certificates(file.clone());
    }
    let (attempts, events) = (connection_error.clone(), connection_error.clone());
    Ok(address
        .log_in(options)
        .name("boxoffice")
        .custom_inbox_prefix(INBOX)
        .ping_interval(PING_EVERY)
        .reconnect_delay_callback(reconnect_delay)
        .reconnect_to_server_callback(move |servers, _| {
            catch_panic(|| attempts.on_connect_attempt(&servers));
            // The library chooses the next server.
            ready(None)
        })
        .event_callback(move |event| {
            catch_panic(|| events.on_event(&event));
            ready(())
        }))
}

/// Connects to NATS.
pub(crate) async fn connect(options: ConnectOptions, address: &Address) -> Result<Client, SetupError> {
    let client = options.connect(address.servers()).await;
    client.map_err(|error| SetupError::Connect(connection_error::humanize(&error.to_string())))
}

/// Checks the file at startup, with a precise error: the library reads it at every attempt to connect.
fn check_authorities(file: &Path) -> Result<(), String> {
    let certificates = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err("the file contains no certificate".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
