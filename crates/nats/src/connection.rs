//! The connection to NATS, which the program keeps for as long as it runs.

use std::borrow::Cow;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State;
use engine::relay::Relay;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::connection_error::LastError;
use crate::limit::FLUSH_WAIT_MAX;
use crate::settings::{Settings, SetupError, reconnect_delay};

/// Pause before a client is replaced whose task in the library has terminated.
const REPLACE_PAUSE: Duration = Duration::from_secs(1);

/// Requests by subject and code.
pub(crate) type RequestCounts = Family<[(&'static str, Cow<'static, str>); 2], Counter>;

/// The connection to NATS, which may be down.
pub struct Nats {
    settings: Settings,
    current: RwLock<Current>,
    pub(crate) connection_error: Arc<LastError>,
    /// Publishes the ledgers over this connection.
    pub relay: Arc<Relay>,
    pub(crate) requests: RequestCounts,
}

/// The library's client, and a token that is cancelled when its task terminates. Only a panic in the library
/// does that.
#[derive(Clone)]
struct Current {
    client: Client,
    terminated: CancellationToken,
}

impl Nats {
    /// Starts to connect in the background, and retries for as long as the program runs.
    pub async fn start(settings: Settings) -> Result<Self, SetupError> {
        let connection_error = Arc::default();
        let current = RwLock::new(start_client(&settings, &connection_error).await?);
        Ok(Self {
            settings,
            current,
            connection_error,
            relay: Arc::default(),
            requests: RequestCounts::default(),
        })
    }

    /// Returns the number of replicas of a new stream.
    pub(crate) fn replicas(&self) -> usize {
        self.settings.replicas
    }

    /// Counts a request; `code` is a problem's, `ok`, or `dropped` if its deadline had passed.
    pub(crate) fn record_request(&self, subject: &'static str, code: &str) {
        let labels = [("subject", Cow::Borrowed(subject)), ("code", Cow::Owned(code.to_owned()))];
        self.requests.get_or_create(&labels).inc();
    }

    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the current client.
    pub(crate) fn client(&self) -> Client {
        self.current().client
    }

    /// Replaces the client whenever its task has terminated. Never returns.
    pub async fn keep_client(&self) {
        loop {
            self.current().terminated.cancelled().await;
            tracing::error!("the NATS client has terminated; creating a new one");
            sleep(REPLACE_PAUSE).await;
            match start_client(&self.settings, &self.connection_error).await {
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

    /// Flushes buffered messages, for at most `FLUSH_WAIT_MAX`.
    pub async fn flush(&self) {
        if self.is_connected() && !matches!(timeout(FLUSH_WAIT_MAX, self.client().flush()).await, Ok(Ok(())))
        {
            tracing::warn!(nats = %self.settings.address, "the last messages may not have reached NATS");
        }
    }
}

/// Creates a client that connects in the background.
async fn start_client(settings: &Settings, connection_error: &Arc<LastError>) -> Result<Current, SetupError> {
    let terminated = CancellationToken::new();
    // Dropped with the callback, which the library's task owns.
    let guard = terminated.clone().drop_guard();
    let delay = move |attempts| {
        let _guard = &guard;
        #[cfg(feature = "sabotage")]
        panic_on_demand();
        reconnect_delay(attempts)
    };
    let options = settings.options(connection_error).await?;
    let options = options.retry_on_initial_connect().reconnect_delay_callback(delay);
    Ok(Current { client: settings.connect(options).await?, terminated })
}

/// Panics in the task of the library if a test requests it.
#[cfg(feature = "sabotage")]
fn panic_on_demand() {
    static PANICS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    supervisor::sabotage::panic_if_requested("nats-library", &PANICS);
}
