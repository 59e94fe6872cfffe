//! The NATS gateway: request/reply on the engine that also serves HTTP, and publication of the ledgers.
//!
//! The subjects of requests, their field names and the notifications are those of an earlier MongoDB booking
//! service. NATS is optional: messages only repeat the ledger, and every request is also available over HTTP.
//! So the program starts, sells and stops without NATS.
//!
//! This crate is apart from the HTTP transport so that neither can depend on the other. What both need is in
//! `api`.

mod address;
pub mod asyncapi;
mod bookings;
mod connection;
mod connection_error;
mod decimal;
mod event_bus;
mod inspect;
mod limit;
mod notification;
mod reply;
mod request;
mod service;
mod settings;
mod status;
mod stream;
mod subject;

pub use address::Address;
pub use connection::Nats;
pub use inspect::{Inspection, LaggingReplica, ServerInspection, StreamInspection, inspect};
pub use service::serve;
pub use settings::{Settings, SetupError};
