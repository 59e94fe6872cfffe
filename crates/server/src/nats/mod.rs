//! NATS: requests in, messages out. The same engine as behind `http/`, for programs that speak NATS.
//!
//! NATS tells others what the ledger already says, and brings requests that may as well come over HTTP: the
//! service starts, sells and stops without it.

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

/// Where answers to this program's own requests arrive: a prefix that others need no right to listen on.
const INBOX: &str = "_INBOX_boxoffice";
/// How often a silent connection is asked whether it lives: two unanswered, and it is made anew.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Longest pause between two attempts to connect.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Pause before a client is replaced whose task in the library has ended.
const REPLACE_PAUSE: Duration = Duration::from_secs(1);

/// The connection to NATS, which may be away.
pub(crate) struct Nats {
    config: crate::config::Nats,
    current: RwLock<Current>,
    address: Address,
    connection_error: Arc<LastError>,
    pub(crate) relay: Arc<Relay>,
}

/// The library's client, and whether its task has ended, which only a panic there does.
#[derive(Clone)]
struct Current {
    client: Client,
    ended: CancellationToken,
}

/// Why NATS cannot be used as it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// The file cannot be read, or holds no credentials.
    #[error("--nats-creds: {0}")]
    Credentials(#[source] std::io::Error),
    /// The file cannot be read, or holds no certificate.
    #[error("--nats-ca: {0}")]
    Authorities(String),
    /// No connection was made, or none can be attempted.
    #[error("{0}")]
    Connect(String),
}

impl Nats {
    /// Begins to connect, and goes on trying for as long as the program runs.
    pub(crate) async fn start(config: &crate::config::Nats, address: Address) -> Result<Self, SetupError> {
        let connection_error = Arc::default();
        let current = RwLock::new(start(config, &address, &connection_error).await?);
        Ok(Self { config: config.clone(), current, address, connection_error, relay: Arc::default() })
    }

    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The connection itself.
    pub(crate) fn client(&self) -> Client {
        self.current().client
    }

    /// Replaces the client whenever its task has ended, for as long as it is polled.
    pub(crate) async fn keep_client(&self) {
        loop {
            self.current().ended.cancelled().await;
            tracing::error!("the client of NATS has ended; a new one is made");
            sleep(REPLACE_PAUSE).await;
            match start(&self.config, &self.address, &self.connection_error).await {
                Ok(new) => *self.current.write().unwrap_or_else(PoisonError::into_inner) = new,
                Err(error) => tracing::error!(%error, "no client of NATS could be made"),
            }
        }
    }

    /// Whether it is connected now.
    pub(crate) fn is_connected(&self) -> bool {
        let Current { client, ended } = self.current();
        !ended.is_cancelled() && client.connection_state() == State::Connected
    }

    /// What is wrong, in a sentence; nothing where all is well.
    pub(crate) fn error(&self) -> Option<String> {
        match (self.is_connected(), self.connection_error.reason()) {
            (true, Some(reason)) => Some(format!("NATS refuses: {reason}")),
            (true, None) => self.relay.status().error,
            (false, Some(reason)) => Some(format!("no connection to NATS: {reason}")),
            (false, None) => Some("no connection to NATS".to_owned()),
        }
    }

    /// How it is getting on, for `/readyz?verbose`.
    pub(crate) fn status_json(&self) -> Value {
        let relay = self.relay.status();
        json!({
            "status": self.error().unwrap_or_else(|| "ok".to_owned()),
            "relay": {
                "status": relay.error.as_deref().unwrap_or("ok"),
                "fills": relay.is_active,
                "behind": relay.pending,
                "lagMillis": relay.lag_micros / 1_000,
                "waitingSeconds": relay.waiting_seconds,
            },
        })
    }

    /// Sends what still waits to be sent, within a bound.
    pub(crate) async fn flush(&self) {
        if self.is_connected()
            && !matches!(timeout(NATS_FLUSH_WAIT_MAX, self.client().flush()).await, Ok(Ok(())))
        {
            tracing::warn!(nats = %self.address, "the last messages may not have reached NATS");
        }
    }
}

/// Begins to connect.
async fn start(
    config: &crate::config::Nats,
    address: &Address,
    connection_error: &Arc<LastError>,
) -> Result<Current, SetupError> {
    let ended = CancellationToken::new();
    // Dropped with the callback, which the library's task owns.
    let alive = ended.clone().drop_guard();
    let pause = move |attempts| {
        let _alive = &alive;
        #[cfg(feature = "sabotage")]
        panic_on_demand();
        pause(attempts)
    };
    let options = options(config, address, connection_error).await?;
    let options = options.retry_on_initial_connect().reconnect_delay_callback(pause);
    Ok(Current { client: connect(options, address).await?, ended })
}

/// A panic in the task of the library, for tests.
#[cfg(feature = "sabotage")]
fn panic_on_demand() {
    static PANICS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    supervisor::sabotage::panic_if_wanted("nats-library", &PANICS);
}

/// How long to wait before an attempt to connect.
fn pause(attempts: usize) -> Duration {
    let exponent = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(5);
    RECONNECT_PAUSE_MAX.min(Duration::from_millis(100) * 2_u32.pow(exponent))
}

/// Runs a callback, which must not end the library's task that calls it.
fn guarded(callback: impl FnOnce()) {
    // The panic is in the log; there is nothing else to do about it.
    let _ = catch_unwind(AssertUnwindSafe(callback));
}

/// How every connection is made. What NATS has against it is told to `connection_error`.
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
        .reconnect_delay_callback(pause)
        .reconnect_to_server_callback(move |servers, _| {
            guarded(|| attempts.attempted(&servers));
            // Which server is tried next is left to the library.
            ready(None)
        })
        .event_callback(move |event| {
            guarded(|| events.on_event(&event));
            ready(())
        }))
}

/// Connects.
pub(crate) async fn connect(options: ConnectOptions, address: &Address) -> Result<Client, SetupError> {
    let client = options.connect(address.servers()).await;
    client.map_err(|error| SetupError::Connect(connection_error::humanize(&error.to_string())))
}

/// Said at the start: the library would read the file at every attempt to connect, and say less.
fn check_authorities(file: &Path) -> Result<(), String> {
    let certificates = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err("there is no certificate in the file".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
