//! An HTTP client with one connection.

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

/// Longest wait for a response: far longer than a request can wait in the queue of a server.
const RESPONSE_WAIT_MAX: Duration = Duration::from_secs(30);

/// The URL of a server: `http://HOST:PORT`, with an IP address as host.
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

/// A client that connects on the first request, and again after an error.
pub(super) struct Client {
    target: Target,
    host: HeaderValue,
    token: HeaderValue,
    connection: Option<Connection>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Drives the connection; aborted when this value is dropped.
    _driver: JoinSet<()>,
}

pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Response {
    /// Returns the body as JSON; `null` if it is not JSON.
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

    /// Sends a request and waits for the whole response. After an error it is unknown if the request was
    /// executed.
    pub(super) async fn request(
        &mut self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Response, String> {
        let outcome = tokio::time::timeout(RESPONSE_WAIT_MAX, self.exchange(method, path, body)).await;
        let outcome = outcome.unwrap_or_else(|_| Err("timed out".to_owned()));
        if outcome.is_err() {
            self.connection = None;
        }
        outcome
    }

    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Response, String> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.host);
        request = request.header(AUTHORIZATION, &self.token);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request =
            request.body(Full::from(body.unwrap_or_default())).map_err(|error| error.to_string())?;
        let sender = self.connected().await?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok(Response { status, body })
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
            // An error of the connection is also returned by the request.
            driver.spawn(async move { drop(connection.await) });
            self.connection = Some(Connection { sender, _driver: driver });
        }
        self.connection.as_mut().map(|connection| &mut connection.sender).ok_or_else(|| "closed".to_owned())
    }
}
