//! The connection for all requests, with a circuit breaker.
//!
//! The breaker is closed while there is a connection. It opens when the connection breaks or three replies in
//! a row fail or time out. While it is open, requests fail at once and nothing is sent. A background task,
//! never a request, reconnects with exponential backoff, and closes the breaker once a connection is made,
//! the scripts are loaded and a write has succeeded. The first attempt starts at once, because most failures
//! are those of a single connection.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, Pipeline, Value};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::counters::Counters;
use super::error::RedisError;
use super::keys;
use super::options::RedisOptions;
use super::scripts::Scripts;
use crate::limit::{
    FAILED_REPLIES_MAX, PING_EVERY, RECONNECT_PAUSE_MAX, RECONNECT_PAUSE_MIN, STABLE_CONNECTION_MIN,
    UNWRITTEN_REQUESTS_MAX,
};

/// The connection that the lock, the limiter and the subscriber of this process share.
pub(super) struct Connection {
    pub(super) scripts: Scripts,
    pub(super) counters: Arc<Counters>,
    client: Client,
    instance: String,
    reply_timeout: Duration,
    connect_timeout: Duration,
    open: watch::Sender<Option<OpenConnection>>,
    failures: AtomicU32,
    latest_epoch: AtomicU64,
    last_connect_error: Mutex<Option<String>>,
}

/// One TCP connection. Epochs number them from 1.
#[derive(Clone)]
struct OpenConnection {
    inner: MultiplexedConnection,
    epoch: u64,
}

impl Connection {
    pub(super) fn new(options: &RedisOptions, counters: Arc<Counters>) -> Self {
        Self {
            scripts: options.scripts.clone(),
            counters,
            client: options.client.clone(),
            instance: options.instance.clone(),
            reply_timeout: options.reply_timeout,
            connect_timeout: options.connect_timeout,
            open: watch::Sender::new(None),
            failures: AtomicU32::new(0),
            latest_epoch: AtomicU64::new(0),
            last_connect_error: Mutex::default(),
        }
    }

    /// The error of the latest attempt to connect; `None` if it succeeded.
    pub(super) fn last_connect_error(&self) -> Option<String> {
        self.last_connect_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_last_connect_error(&self, error: Option<String>) {
        *self.last_connect_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// True if the breaker is closed.
    pub(super) fn is_up(&self) -> bool {
        self.open.borrow().is_some()
    }

    /// Returns once the breaker is closed.
    pub(super) async fn wait_until_up(&self) {
        self.wait_for(true).await;
    }

    /// Returns once the breaker is open.
    pub(super) async fn wait_until_down(&self) {
        self.wait_for(false).await;
    }

    /// The epoch of the current connection; `None` while there is none.
    pub(super) fn epoch(&self) -> Option<u64> {
        epoch_of(self.open.borrow().as_ref())
    }

    /// Returns once the epoch is no longer `known`.
    pub(super) async fn wait_until_changed(&self, known: Option<u64>) {
        // No error: the sender lives as long as `self`.
        let _ = self.open.subscribe().wait_for(|open| epoch_of(open.as_ref()) != known).await;
    }

    async fn wait_for(&self, up: bool) {
        // No error: the sender lives as long as `self`.
        let _ = self.open.subscribe().wait_for(|connection| connection.is_some() == up).await;
    }

    /// Sends one command and waits for its reply.
    pub(super) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        let send =
            async |connection: &mut MultiplexedConnection| connection.req_packed_command(command).await;
        let value = self.send(send, std::slice::from_ref).await?;
        T::from_redis_value(value.extract_error()?).map_err(|_| RedisError::Protocol)
    }

    /// Sends a pipeline. Returns one reply per command, in order; a command's error is its reply.
    pub(super) async fn query_pipeline(&self, commands: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let count = commands.len();
        let send = async |connection: &mut MultiplexedConnection| {
            connection.req_packed_commands(commands, 0, count).await
        };
        let values = self.send(send, Vec::as_slice).await?;
        if values.len() == count { Ok(values) } else { Err(RedisError::Protocol) }
    }

    /// The path of every request: counts the round trip and reports its result to the breaker.
    async fn send<T>(
        &self,
        send: impl AsyncFnOnce(&mut MultiplexedConnection) -> redis::RedisResult<T>,
        replies: impl Fn(&T) -> &[Value],
    ) -> Result<T, RedisError> {
        let Some(OpenConnection { mut inner, epoch }) = self.open.borrow().clone() else {
            return Err(RedisError::Down);
        };
        self.counters.round_trips.add(1);
        // The timeout includes the wait in the write queue.
        let result = match timeout(self.reply_timeout, send(&mut inner)).await {
            Ok(reply) => reply.map_err(RedisError::Server),
            Err(_) => Err(RedisError::Timeout),
        };
        match result.as_ref().map(|reply| replies(reply).iter().find_map(server_failure)) {
            Ok(None) => self.failures.store(0, Ordering::Relaxed),
            Ok(Some(error)) => self.record_failure(epoch, &error),
            Err(error) => self.record_failure(epoch, error),
        }
        result
    }

    fn record_failure(&self, epoch: u64, error: &RedisError) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if error.is_disconnect() || failures >= FAILED_REPLIES_MAX {
            self.open.send_if_modified(|open| {
                let is_current = open.as_ref().is_some_and(|connection| connection.epoch == epoch);
                if is_current {
                    *open = None;
                    self.counters.breaker_openings.add(1);
                }
                is_current
            });
        }
    }

    /// Connects, checks the connection and reconnects, until dropped.
    pub(super) async fn maintain(&self) {
        let mut pause = RECONNECT_PAUSE_MIN;
        loop {
            let connected = timeout(self.connect_timeout, self.connect()).await;
            let connected = connected.unwrap_or_else(|_| Err(connect_timed_out()));
            self.set_last_connect_error(connected.as_ref().err().map(ToString::to_string));
            let Ok(inner) = connected else {
                sleep(pause).await;
                pause = (pause * 2).min(RECONNECT_PAUSE_MAX);
                continue;
            };
            let epoch = self.latest_epoch.fetch_add(1, Ordering::Relaxed) + 1;
            self.failures.store(0, Ordering::Relaxed);
            self.open.send_replace(Some(OpenConnection { inner, epoch }));
            self.counters.connections.add(1);
            let began = Instant::now();
            // Detects a dead server also while there are no other requests.
            let ping = redis::cmd("PING");
            while timeout(PING_EVERY, self.wait_until_down()).await.is_err() {
                let _ = self.query::<String>(&ping).await;
            }
            if began.elapsed() >= STABLE_CONNECTION_MIN {
                pause = RECONNECT_PAUSE_MIN;
            } else {
                sleep(pause).await;
                pause = (pause * 2).min(RECONNECT_PAUSE_MAX);
            }
        }
    }

    /// Connects, loads the scripts and writes a key: a server that takes no writes leaves the breaker open.
    async fn connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        // No response timeout here: this file sets its timeouts itself.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(UNWRITTEN_REQUESTS_MAX);
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        let probe = keys::probe(&self.instance);
        let mut first = self.scripts.load_commands();
        first.cmd("SET").arg(probe).arg(1).arg("PX").arg(1).ignore();
        first.query_async::<()>(&mut connection).await?;
        Ok(connection)
    }

    /// Opens a second connection that only subscribes to this instance's channel.
    pub(super) async fn subscribe(&self) -> redis::RedisResult<redis::aio::PubSub> {
        timeout(self.connect_timeout, async {
            let mut subscription = self.client.get_async_pubsub().await?;
            subscription.subscribe(keys::channel(&self.instance)).await?;
            Ok(subscription)
        })
        .await
        .unwrap_or_else(|_| Err(connect_timed_out()))
    }
}

fn epoch_of(open: Option<&OpenConnection>) -> Option<u64> {
    open.map(|connection| connection.epoch)
}

fn connect_timed_out() -> redis::RedisError {
    (redis::ErrorKind::Io, "connecting timed out").into()
}

/// An error reply that shows that the server cannot serve, e.g. because it is a replica, loading, or out of
/// memory. Errors that this crate repairs itself (an unknown script, a value of a wrong type) do not count.
fn server_failure(reply: &Value) -> Option<RedisError> {
    let Value::ServerError(error) = reply else { return None };
    let error = RedisError::Server(error.clone().into());
    (!error.is_unknown_script() && !error.is_wrong_type()).then_some(error)
}
