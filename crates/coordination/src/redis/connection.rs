//! The connection that everything is asked on, and the breaker in front of it.
//!
//! While the breaker is closed there is a connection. It opens when the connection breaks or a few answers in
//! a row do not come in time; from then on asking costs nothing, as nothing is sent. A task of its own, and no
//! request, tries the server again, at growing intervals, and closes the breaker once a connection is made,
//! the scripts are loaded and a write was taken. The first try follows at once: most connections break alone.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, Pipeline, RedisError, Value};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::counters::Counters;
use super::error::Trouble;
use super::scripts::Scripts;
use super::{RedisOptions, keys};

/// Answers in a row that may fail before the breaker opens: one slow answer is no outage, and three cost a
/// caller no more than a third of a second.
const FAILURES_MAX: u32 = 3;
/// First and longest pause between two tries to reach a server again.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// A connection that is lost sooner counts as a failed try: a server that takes connections and fails what is asked
/// on them must not be connected to in a loop.
const CONNECTION_MIN: Duration = Duration::from_millis(100);
/// How often a server is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_millis(500);
/// Requests that may wait to be written. The library's 50 would make a crowd queue before it is heard.
const WRITE_QUEUE: usize = 4_096;

/// What all parts share.
pub(super) struct Link {
    pub(super) scripts: Scripts,
    pub(super) counters: Arc<Counters>,
    client: Client,
    instance: String,
    answer_timeout: Duration,
    connect_timeout: Duration,
    open: watch::Sender<Option<Connection>>,
    failures: AtomicU32,
    /// Connections made so far: the number of the latest one.
    connections: AtomicU64,
    /// Why no connection could be made the last time.
    why_down: Mutex<Option<String>>,
}

/// One connection, told apart from those before and after it.
#[derive(Clone)]
struct Connection {
    inner: MultiplexedConnection,
    number: u64,
}

impl Link {
    pub(super) fn new(options: &RedisOptions, counters: Arc<Counters>) -> Self {
        Self {
            scripts: options.scripts.clone(),
            counters,
            client: options.client.clone(),
            instance: options.instance.clone(),
            answer_timeout: options.reply_timeout,
            connect_timeout: options.connect_timeout,
            open: watch::Sender::new(None),
            failures: AtomicU32::new(0),
            connections: AtomicU64::new(0),
            why_down: Mutex::default(),
        }
    }

    pub(super) fn why_down(&self) -> Option<String> {
        self.why_down.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_why_down(&self, why: Option<String>) {
        *self.why_down.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Whether the breaker is closed.
    pub(super) fn is_up(&self) -> bool {
        self.open.borrow().is_some()
    }

    /// Returns once the breaker is closed.
    pub(super) async fn up(&self) {
        self.wait_for(true).await;
    }

    /// Returns once the breaker is open.
    pub(super) async fn down(&self) {
        self.wait_for(false).await;
    }

    /// The number of the connection; `None` while there is none.
    pub(super) fn connection(&self) -> Option<u64> {
        number(self.open.borrow().as_ref())
    }

    /// Returns once the connection is another than `known`.
    pub(super) async fn changed(&self, known: Option<u64>) {
        // The sender lives as long as this link.
        let _ = self.open.subscribe().wait_for(|open| number(open.as_ref()) != known).await;
    }

    async fn wait_for(&self, up: bool) {
        // The sender lives as long as this link.
        let _ = self.open.subscribe().wait_for(|connection| connection.is_some() == up).await;
    }

    /// Sends one command and waits for the answer.
    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Trouble> {
        let send =
            async |connection: &mut MultiplexedConnection| connection.req_packed_command(command).await;
        let value = self.send(send, std::slice::from_ref).await?;
        T::from_redis_value(value.extract_error()?).map_err(|_| Trouble::Nonsense)
    }

    /// Sends many commands in one go; one answer each, in their order, errors among them.
    pub(super) async fn ask_all(&self, commands: &Pipeline) -> Result<Vec<Value>, Trouble> {
        let count = commands.len();
        let send = async |connection: &mut MultiplexedConnection| {
            connection.req_packed_commands(commands, 0, count).await
        };
        let values = self.send(send, Vec::as_slice).await?;
        if values.len() == count { Ok(values) } else { Err(Trouble::Nonsense) }
    }

    /// Whatever is asked is counted here, as a round trip and for the breaker.
    async fn send<T>(
        &self,
        send: impl AsyncFnOnce(&mut MultiplexedConnection) -> redis::RedisResult<T>,
        answers: impl Fn(&T) -> &[Value],
    ) -> Result<T, Trouble> {
        let Some(Connection { mut inner, number }) = self.open.borrow().clone() else {
            return Err(Trouble::Down);
        };
        self.counters.round_trips.add(1);
        // Around the whole, because waiting to be written is waiting too.
        let outcome = match timeout(self.answer_timeout, send(&mut inner)).await {
            Ok(answer) => answer.map_err(Trouble::Said),
            Err(_) => Err(Trouble::Late),
        };
        match outcome.as_ref().map(|answer| answers(answer).iter().find_map(refusal)) {
            Ok(None) => self.failures.store(0, Ordering::Relaxed),
            Ok(Some(trouble)) => self.failed(number, &trouble),
            Err(trouble) => self.failed(number, trouble),
        }
        outcome
    }

    fn failed(&self, number: u64, trouble: &Trouble) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if trouble.is_cut() || failures >= FAILURES_MAX {
            self.open.send_if_modified(|open| {
                let same = open.as_ref().is_some_and(|connection| connection.number == number);
                if same {
                    *open = None;
                    self.counters.breaker_openings.add(1);
                }
                same
            });
        }
    }

    /// Keeps a connection open for as long as it is polled.
    pub(super) async fn keep(&self) {
        let mut pause = PAUSE_MIN;
        loop {
            let connected = timeout(self.connect_timeout, self.connect()).await;
            let connected = connected.unwrap_or_else(|_| Err(late()));
            self.note_why_down(connected.as_ref().err().map(ToString::to_string));
            let Ok(inner) = connected else {
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
                continue;
            };
            let number = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
            self.failures.store(0, Ordering::Relaxed);
            self.open.send_replace(Some(Connection { inner, number }));
            self.counters.connections.add(1);
            let began = Instant::now();
            // A server that nobody asks anything would not be missed.
            let ping = redis::cmd("PING");
            while timeout(PING_EVERY, self.down()).await.is_err() {
                let _ = self.ask::<String>(&ping).await;
            }
            if began.elapsed() >= CONNECTION_MIN {
                pause = PAUSE_MIN;
            } else {
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }

    /// A connection that is worth closing the breaker for.
    async fn connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        // Every deadline is set around what it bounds, in this file.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(WRITE_QUEUE);
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        let probe = keys::probe(&self.instance);
        let mut first = self.scripts.load();
        first.cmd("SET").arg(probe).arg(1).arg("PX").arg(1).ignore();
        first.query_async::<()>(&mut connection).await?;
        Ok(connection)
    }

    /// A second connection, which only listens.
    pub(super) async fn listen(&self) -> redis::RedisResult<redis::aio::PubSub> {
        timeout(self.connect_timeout, async {
            let mut listener = self.client.get_async_pubsub().await?;
            listener.subscribe(keys::channel(&self.instance)).await?;
            Ok(listener)
        })
        .await
        .unwrap_or_else(|_| Err(late()))
    }
}

fn number(open: Option<&Connection>) -> Option<u64> {
    open.map(|connection| connection.number)
}

fn late() -> RedisError {
    (redis::ErrorKind::Io, "no connection in time").into()
}

/// Why a server does not do what it is there for, e.g. because it is a replica, loading, or out of memory. What
/// a script of ours can set right is no such reason.
fn refusal(answer: &Value) -> Option<Trouble> {
    let Value::ServerError(error) = answer else { return None };
    let trouble = Trouble::Said(error.clone().into());
    (!trouble.is_unknown_script() && !trouble.is_wrong_type()).then_some(trouble)
}
