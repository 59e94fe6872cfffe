//! An HTTP client with one connection.

use std::net::SocketAddr;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::limit::RESPONSE_WAIT_MAX;

/// A client that connects on the first request, and again after an error.
pub(crate) struct Client {
    target: SocketAddr,
    host: HeaderValue,
    token: HeaderValue,
    connection: Option<Connection>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Drives the connection; aborted when this value is dropped.
    _driver: JoinSet<()>,
}

pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Response {
    /// Returns the body as JSON; `null` if it is not JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Client {
    pub(crate) fn new(target: SocketAddr, token: &str) -> Result<Self, String> {
        let value = |text: String| HeaderValue::try_from(text).map_err(|error| error.to_string());
        let (host, token) = (value(target.to_string())?, value(format!("Bearer {token}"))?);
        Ok(Self { target, host, token, connection: None })
    }

    /// Sends a request and waits for the whole response. After an error it is unknown if the request was
    /// executed.
    pub(crate) async fn request(
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
            let stream = TcpStream::connect(self.target).await.map_err(|error| error.to_string())?;
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
