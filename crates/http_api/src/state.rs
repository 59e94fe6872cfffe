//! The state of the HTTP transport.

use std::sync::Arc;

use api::App;
use axum::extract::FromRef;
use domain::Clock;
use ipnet::IpNet;
use prometheus_client::registry::Registry;

use crate::auth::Tokens;
use crate::metrics::HttpMetrics;
use crate::streams::Streams;

/// The state that all handlers share: that of every transport, and what only HTTP needs.
#[derive(Clone)]
pub struct HttpState {
    /// The state of every transport.
    pub app: App,
    /// Verifies tokens.
    pub tokens: Arc<Tokens>,
    /// The time at which tokens are verified.
    pub clock: Arc<dyn Clock>,
    /// The open availability streams.
    pub streams: Arc<Streams>,
    /// The metrics of requests.
    pub metrics: Arc<HttpMetrics>,
    /// All metrics of the program, as they are served.
    pub registry: Arc<Registry>,
    /// Proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Arc<[IpNet]>,
}

impl FromRef<HttpState> for App {
    fn from_ref(state: &HttpState) -> Self {
        state.app.clone()
    }
}
