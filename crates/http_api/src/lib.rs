//! The HTTP transport: connections, routes, tokens and handlers.
//!
//! A handler parses the request, calls the engine and renders the response; it contains no business rules.
//! This crate is apart from the gateway for NATS so that neither can depend on the other: each works without
//! the other, and what both need is in `api`. It is not called `http`, because that is the name of the
//! library with the types of HTTP, and `cargo -p http` could not tell them apart.

pub mod auth;
mod availability;
mod bookings;
mod caller;
mod command_request;
mod docs;
mod events;
mod health;
pub mod limit;
mod linger;
mod listener;
mod metrics;
mod params;
mod payload;
mod refunds;
mod rejection;
mod response;
mod router;
mod state;
mod stats;
mod streams;

pub use listener::{Acceptor, serve};
pub use metrics::HttpMetrics;
pub use router::{metrics_router, router};
pub use state::HttpState;
pub use streams::Streams;
