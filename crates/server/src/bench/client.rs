//! One connection to a server.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Longest wait for an answer: far longer than a server lets a request wait for its turn.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(30);

/// Where a server listens: `http://HOST:PORT`, the host as an IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target(SocketAddr);

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        let address = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
        address.parse().map(Self).map_err(|_| "must be an address such as http://127.0.0.1:8080")
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

/// A connection, made when it is needed and again when it broke.
pub(super) struct Client {
    target: Target,
    host: HeaderValue,
    token: HeaderValue,
    connection: Option<Connection>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Moves the bytes; ends with the value.
    _driver: JoinSet<()>,
}

/// What a server said.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Answer {
    /// The body, where it is JSON.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Client {
    pub(super) fn new(target: Target, token: &str) -> Result<Self, String> {
        let value = |text: String| HeaderValue::try_from(text).map_err(|error| error.to_string());
        let (host, token) = (value(target.0.to_string())?, value(format!("Bearer {token}"))?);
        Ok(Self { target, host, token, connection: None })
    }

    /// Asks, and waits for the whole answer. After an error nobody knows whether the request was carried out.
    pub(super) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Answer, String> {
        let outcome = tokio::time::timeout(ANSWER_WAIT_MAX, self.exchange(method, path, body)).await;
        let outcome = outcome.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        if outcome.is_err() {
            self.connection = None;
        }
        outcome
    }

    async fn exchange(&mut self, method: Method, path: &str, body: Option<String>) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.host);
        request = request.header(AUTHORIZATION, &self.token);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request =
            request.body(Full::from(body.unwrap_or_default())).map_err(|error| error.to_string())?;
        let sender = self.connected().await?;
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok(Answer { status, body })
    }

    async fn connected(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, String> {
        let alive = match &mut self.connection {
            Some(connection) => connection.sender.ready().await.is_ok(),
            None => false,
        };
        if !alive {
            let stream = TcpStream::connect(self.target.0).await.map_err(|error| error.to_string())?;
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            let (sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
            let mut driver = JoinSet::new();
            // Its error is the request's error, too.
            driver.spawn(async move { drop(connection.await) });
            self.connection = Some(Connection { sender, _driver: driver });
        }
        self.connection.as_mut().map(|connection| &mut connection.sender).ok_or_else(|| "closed".to_owned())
    }
}
