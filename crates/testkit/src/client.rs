//! An API client: one connection, kept alive, and a token.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Response;
use crate::wait::within_deadline;

/// A client of the HTTP API. It reconnects when its connection is closed.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    token: Option<String>,
    connection: Option<Connection>,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// The connection's I/O task; aborted on drop.
    _driver: JoinSet<()>,
}

/// The connection was lost before the response arrived. The outcome of the request is unknown.
#[derive(Clone, Debug)]
pub struct ConnectionLost(pub String);

impl Client {
    /// A client with a token, or without one.
    pub fn new(address: SocketAddr, token: Option<String>) -> Self {
        Self { address, token, connection: None }
    }

    /// Sends another token from now on, over the same connection.
    pub fn use_token(&mut self, token: String) {
        self.token = Some(token);
    }

    /// Connects, so that the next request is sent at once.
    pub async fn connect(&mut self) -> Result<(), ConnectionLost> {
        let alive = match &mut self.connection {
            Some(connection) => connection.sender.ready().await.is_ok(),
            None => false,
        };
        if alive {
            return Ok(());
        }
        let stream =
            TcpStream::connect(self.address).await.map_err(|error| ConnectionLost(error.to_string()))?;
        stream.set_nodelay(true).map_err(|error| ConnectionLost(error.to_string()))?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| ConnectionLost(error.to_string()))?;
        let mut driver = JoinSet::new();
        // Its error is also the request's error.
        driver.spawn(async move { drop(connection.await) });
        self.connection = Some(Connection { sender, _driver: driver });
        Ok(())
    }

    /// Sends any request, with the token added, and waits for the complete response.
    async fn try_send(&mut self, mut request: Request<Full<Bytes>>) -> Result<Response, ConnectionLost> {
        let request_line = format!("{} {}", request.method(), request.uri());
        if let Some(token) = &self.token
            && !request.headers().contains_key(header::AUTHORIZATION)
        {
            let bearer = format!("Bearer {token}").parse().expect("a token is a header value");
            request.headers_mut().insert(header::AUTHORIZATION, bearer);
        }
        let host = self.address.to_string().parse().expect("an address is a header value");
        request.headers_mut().insert(header::HOST, host);
        let response = async {
            self.connect().await?;
            let lost = |error: hyper::Error| ConnectionLost(error.to_string());
            let connection = self.connection.as_mut().expect("connected above");
            let (parts, body) = connection.sender.send_request(request).await.map_err(lost)?.into_parts();
            let body = body.collect().await.map_err(lost)?.to_bytes();
            if parts.headers.get(header::CONNECTION).is_some_and(|value| value == "close") {
                self.connection = None;
            }
            Ok(Response { status: parts.status, headers: parts.headers, body, request: request_line.clone() })
        };
        let outcome = within_deadline(&request_line, response).await;
        if outcome.is_err() {
            self.connection = None;
        }
        outcome
    }

    /// Sends any request; panics without a response.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Response {
        let request_line = format!("{} {}", request.method(), request.uri());
        self.try_send(request).await.unwrap_or_else(|lost| panic!("{request_line}: {lost:?}"))
    }

    /// Sends a request with an optional JSON body.
    pub async fn try_request(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response, ConnectionLost> {
        self.try_send(request(method, path, body)).await
    }

    /// Sends a request with these header fields and this body; panics without a response.
    pub async fn request_with(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into()));
        self.send(request.unwrap_or_else(|error| panic!("{path}: {error}"))).await
    }

    /// `GET`.
    pub async fn get(&mut self, path: &str) -> Response {
        self.send(request(Method::GET, path, None)).await
    }

    /// `POST` with a JSON body.
    pub async fn post(&mut self, path: &str, body: &Value) -> Response {
        self.send(request(Method::POST, path, Some(body))).await
    }

    /// `POST` with any bytes as `application/json`.
    pub async fn post_text(&mut self, path: &str, body: impl Into<Bytes>) -> Response {
        self.request_with(Method::POST, path, &[("content-type", "application/json")], body).await
    }

    /// `PATCH` with a JSON body.
    pub async fn patch(&mut self, path: &str, body: &Value) -> Response {
        self.send(request(Method::PATCH, path, Some(body))).await
    }

    /// Creates an event as an admin; returns its id.
    pub async fn create_event(&mut self, body: &Value) -> String {
        let event = self.post("/v1/events", body).await.expect(201);
        id_of(&event)
    }

    /// Books tickets for the token's own user.
    pub async fn book(&mut self, event: &str, tickets: u32) -> Response {
        self.post("/v1/bookings", &json!({"eventId": event, "ticketQuantity": tickets})).await
    }

    /// Books tickets for a user, as a service or an admin.
    pub async fn book_for(&mut self, user: &str, event: &str, tickets: u32) -> Response {
        let body = json!({"eventId": event, "ticketQuantity": tickets, "userId": user});
        self.post("/v1/bookings", &body).await
    }

    /// Confirms a booking by a captured payment, as a service or an admin.
    pub async fn confirm(&mut self, booking: &str, transaction: &str) -> Response {
        let body = json!({"paymentTransactionId": transaction});
        self.post(&format!("/v1/bookings/{booking}/confirm"), &body).await
    }

    /// Cancels a booking.
    pub async fn cancel(&mut self, booking: &str) -> Response {
        self.post(&format!("/v1/bookings/{booking}/cancel"), &json!({})).await
    }

    /// Reads a booking.
    pub async fn booking(&mut self, booking: &str) -> Value {
        self.get(&format!("/v1/bookings/{booking}")).await.expect(200)
    }

    /// The numbers of held, sold and available tickets of an event.
    pub async fn counts(&mut self, event: &str) -> (u64, u64, u64) {
        let body = self.get(&format!("/v1/events/{event}/availability")).await.expect(200);
        let count = |name: &str| body[name].as_u64().unwrap_or_else(|| panic!("{name} of {body}"));
        (count("held"), count("sold"), count("available"))
    }

    /// All rows of a list, page by page. `path` may have filters, but neither `limit` nor `after`.
    pub async fn all(&mut self, path: &str) -> Vec<Value> {
        let joint = if path.contains('?') { '&' } else { '?' };
        let mut rows = Vec::new();
        let mut next = format!("{path}{joint}limit=100");
        loop {
            let page = self.get(&next).await.expect(200);
            rows.extend(page["data"].as_array().cloned().unwrap_or_default());
            match page["nextCursor"].as_str() {
                Some(cursor) => next = format!("{path}{joint}limit=100&after={cursor}"),
                None => return rows,
            }
        }
    }

    /// The refunds recorded for one payment.
    pub async fn refunds_of(&mut self, transaction: &str) -> Vec<Value> {
        let all = self.all("/v1/refunds").await;
        all.into_iter().filter(|refund| refund["paymentTransactionId"] == transaction).collect()
    }
}

/// The `id` of a JSON body.
#[track_caller]
pub fn id_of(body: &Value) -> String {
    body["id"].as_str().unwrap_or_else(|| panic!("no id: {body}")).to_owned()
}

fn request(method: Method, path: &str, body: Option<&Value>) -> Request<Full<Bytes>> {
    let builder = Request::builder().method(method).uri(path);
    let request = match body {
        Some(body) => builder
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string()))),
        None => builder.body(Full::default()),
    };
    request.unwrap_or_else(|error| panic!("{path}: {error}"))
}
