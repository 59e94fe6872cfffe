//! Runs and drives the real program from outside, as its users and operators do: as a process, over HTTP, by
//! its command line. For tests only.
//!
//! Nothing here depends on the program's internals, so a passing test is evidence about the shipped binary.
//! Helpers panic when they cannot continue, with the last output of the program.

#![expect(clippy::missing_panics_doc, reason = "a test helper fails the test where it cannot continue")]

mod bad_log;
mod certificates;
mod client;
mod environment;
pub mod history;
mod journal;
mod load;
mod nats;
mod nats_cluster;
mod panics;
mod postgres;
mod postgres_proxy;
mod process;
mod program;
mod raw_connection;
mod redis;
mod redis_proxy;
mod request_bodies;
mod response;
mod server;
mod small_disk;
mod token;
mod wait;

pub use bad_log::BadLog;
pub use certificates::Certificates;
pub use client::{Client, ConnectionLost, id_of};
pub use environment::{number_from_environment, text_from_environment};
pub use journal::Journal;
pub use load::{Load, expect_service_and_stop};
pub use nats::NatsServer;
pub use nats_cluster::NatsCluster;
pub use panics::Panics;
pub use postgres::{Database, PostgresServer};
pub use postgres_proxy::{CommitFault, PostgresProxy, ProxyCounts};
pub use process::{Exit, Process};
pub use program::{Program, ProgramOutput};
pub use raw_connection::RawConnection;
pub use redis::RedisServer;
pub use redis_proxy::{RedisFault, RedisProxy};
pub use request_bodies::{event_body, with_fields};
pub use response::Response;
pub use server::{SECRET, Server, Setup};
pub use small_disk::SmallDisk;
pub use token::Tokens;
pub use wait::{DEADLINE, eventually, within_deadline};
