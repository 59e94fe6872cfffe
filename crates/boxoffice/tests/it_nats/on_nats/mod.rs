//! Tests that need NATS, and most of them PostgreSQL; where either is not installed, `make tests` skips them.

mod access;
mod asyncapi;
mod bad_log;
mod cluster;
mod gateway;
mod hostile;
mod progress;
mod relay;
mod requests;
#[cfg(feature = "sabotage")]
mod restarts;
mod traces;
