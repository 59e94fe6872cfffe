//! Raw HTTP/1.1 connections, for requests that no client library would send.

use std::net::SocketAddr;

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode, header};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Response;
use crate::wait::within_deadline;

/// A connection on which a test writes arbitrary bytes.
#[derive(Debug)]
pub struct RawConnection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl RawConnection {
    /// Connects to an address.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = within_deadline("a connection", TcpStream::connect(address)).await;
        let stream = stream.unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"));
        Self { stream, received: Vec::new() }
    }

    /// Sends bytes. A connection that the peer has closed is no error: its response may still be readable.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = within_deadline("bytes are written", self.stream.write_all(bytes.as_ref())).await;
    }

    /// The next response; `None` if the connection is closed instead.
    pub async fn read_response(&mut self) -> Option<Response> {
        within_deadline("a response", self.read(true)).await
    }

    /// True if the peer closes the connection without sending anything more.
    pub async fn is_closed(&mut self) -> bool {
        self.received.is_empty() && !within_deadline("the connection is closed", self.receive()).await
    }

    /// The next response; `None` if the connection is closed before it is complete.
    pub async fn read_response_if_complete(&mut self) -> Option<Response> {
        within_deadline("a response, or the end", self.read(false)).await
    }

    async fn read(&mut self, must_be_complete: bool) -> Option<Response> {
        let head = loop {
            let end = self.received.windows(4).position(|window| window == b"\r\n\r\n");
            match end {
                Some(end) => break self.received.drain(..end + 4).collect::<Vec<u8>>(),
                None if self.receive().await => {}
                None => return None,
            }
        };
        let head = String::from_utf8(head).expect("a head is ASCII");
        let (status, headers) = parse(&head);
        let length =
            headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let length: usize = length.unwrap_or(0);
        while self.received.len() < length {
            if !self.receive().await {
                assert!(!must_be_complete, "the response is truncated: {head}");
                return None;
            }
        }
        let body = Bytes::from(self.received.drain(..length).collect::<Vec<u8>>());
        Some(Response { status, headers, body, request: "bytes".to_owned() })
    }

    /// Reads more bytes; false at the end of the stream.
    async fn receive(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.received).await, Ok(bytes) if bytes > 0)
    }
}

fn parse(head: &str) -> (StatusCode, HeaderMap) {
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name = header::HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        headers.append(name, value.trim().parse().expect("a header value"));
    }
    (status.unwrap_or_else(|| panic!("not an HTTP response: {head}")), headers)
}
