//! Drives the real program from outside, the way its users and operators do: as a process, over HTTP, by
//! its command line. For tests only.
//!
//! Nothing here knows how the program is made, so a test that is green says something about what is
//! shipped. Helpers panic when they cannot go on, with what the program said last.

#![expect(clippy::missing_panics_doc, reason = "a helper of a test ends the test where it cannot go on")]

mod answer;
mod bad_log;
mod certificates;
mod client;
mod environment;
pub mod history;
mod journal;
mod load;
mod nats;
mod nats_cluster;
mod order;
mod panics;
mod postgres;
mod process;
mod program;
mod raw;
mod redis;
mod redis_proxy;
mod server;
mod small_disk;
mod token;
mod wait;
mod wire;

pub use answer::Answer;
pub use bad_log::{BadLog, expect_service_and_stop};
pub use certificates::Certificates;
pub use client::{Client, Lost, id_of};
pub use environment::{number_from_environment, text_from_environment};
pub use journal::Journal;
pub use load::Load;
pub use nats::NatsServer;
pub use nats_cluster::NatsCluster;
pub use order::{event_body, with};
pub use panics::Panics;
pub use postgres::{Cluster, Database};
pub use process::{Ending, Process};
pub use program::{Finished, Program};
pub use raw::Raw;
pub use redis::RedisServer;
pub use redis_proxy::{RedisProxy, RedisWire};
pub use server::{SECRET, Server, Setup};
pub use small_disk::SmallDisk;
pub use token::Tokens;
pub use wait::{DEADLINE, eventually, within_deadline};
pub use wire::{AtCommit, Counts, Wire};
