//! The settings of a connection to NATS.

use std::future::ready;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_nats::rustls::pki_types::CertificateDer;
use async_nats::rustls::pki_types::pem::PemObject as _;
use async_nats::{Client, ConnectOptions};

use crate::address::Address;
use crate::connection_error::{LastError, humanize};
use crate::limit::RECONNECT_PAUSE_MAX;

/// The subject prefix for replies to this program's own requests, so that other users need no permission on
/// it.
const INBOX: &str = "_INBOX_boxoffice";
/// Interval of pings on an idle connection. After two without a reply it is replaced.
const PING_EVERY: Duration = Duration::from_secs(5);

/// The settings of a connection, and of the stream behind it.
#[derive(Clone)]
pub struct Settings {
    /// The servers, and the credentials in their URLs.
    pub address: Address,
    /// The credentials file, as written by `nsc`.
    pub creds: Option<PathBuf>,
    /// The PEM file with CA certificates; by default those of the system.
    pub ca: Option<PathBuf>,
    /// Replicas of a new stream.
    pub replicas: usize,
}

/// An error in the settings for NATS.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
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

impl Settings {
    /// Returns the options of every connection. Errors are recorded in `connection_error`.
    pub(crate) async fn options(
        &self,
        connection_error: &Arc<LastError>,
    ) -> Result<ConnectOptions, SetupError> {
        let mut options = match &self.creds {
            Some(file) => {
                ConnectOptions::with_credentials_file(file).await.map_err(SetupError::Credentials)?
            }
            None => ConnectOptions::new(),
        };
        if let Some(file) = &self.ca {
            check_authorities(file).map_err(SetupError::Authorities)?;
            options = options.add_root_certificates(file.clone());
        }
        let (attempts, events) = (connection_error.clone(), connection_error.clone());
        Ok(self
            .address
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
    pub(crate) async fn connect(&self, options: ConnectOptions) -> Result<Client, SetupError> {
        let client = options.connect(self.address.servers()).await;
        client.map_err(|error| SetupError::Connect(humanize(&error.to_string())))
    }
}

/// Returns the pause before an attempt to connect: exponential backoff from 100 ms to
/// [`RECONNECT_PAUSE_MAX`].
pub(crate) fn reconnect_delay(attempts: usize) -> Duration {
    let exponent = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(5);
    RECONNECT_PAUSE_MAX.min(Duration::from_millis(100) * 2_u32.pow(exponent))
}

/// Runs a callback and catches its panic, which would terminate the library's task.
fn catch_panic(callback: impl FnOnce()) {
    // The panic hook has logged the panic.
    let _ = catch_unwind(AssertUnwindSafe(callback));
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
