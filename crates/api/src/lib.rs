//! What every transport of the API shares: the JSON types, the problems, the messages, the OpenAPI document,
//! and the state below the transports.
//!
//! A transport parses requests into these types, calls the engine, and renders the results with them. This
//! crate is apart from the transports so that it cannot depend on one of them: neither on axum nor on the
//! client of NATS. So it contains only what can be the same over each transport.

mod app;
mod dependency;
pub mod idempotency;
pub mod limit;
pub mod message;
pub mod metrics;
pub mod openapi;
mod problem;
pub mod wire;

pub use app::App;
pub use dependency::{Dependency, Readiness, Status};
pub use problem::Problem;
