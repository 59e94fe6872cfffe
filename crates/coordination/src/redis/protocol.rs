//! The protocol of the lock on Redis: the states of a request, what a process sends, and when.
//!
//! # Overview
//!
//! One task of each process, the actor ([`super::actor`]), sends all lock commands. Callers send [`Command`]s
//! to it over a channel and wait only for their own reply. Dropping a caller at any await
//! sends one more command, [`Command::Release`], and waits for nothing. For its process the actor owns:
//!
//! - one [`Entry`] per caller that waits for a key or owns one, identified by a number;
//! - the time of each entry's next renewal, poll or timeout;
//! - the outbox: requests to send, failed requests to retry, and renewals.
//!
//! It sends batches, one in flight at a time. Therefore the requests of one caller (acquire, renew, release)
//! reach the server in order. All scripts may be sent twice, so a request with an unknown outcome is retried,
//! or undone by a release: after a pause or on the next connection, never at once, to avoid a busy loop
//! in its event loop, which would keep its thread from all other tasks.
//!
//! # States
//!
//! ```text
//!     Command::Acquire
//!            │
//!            ▼
//!     ┌─────────────┐   taken or queue full / no reply / error / no connection
//! ┌──▶│  Requested  │──────────────────────────────────────────────────────────▶ the caller gets an error
//! │   └──┬───────┬──┘                                                             ▲
//! │      │ queued│ owned                                                          │
//! │      ▼       │                                                                │
//! │   ┌────────┐ │      wait over / no connection                                 │
//! └───│ Queued │─┼────────────────────────────────────────────────────────────────┘
//!  (1)└──┬─────┘ │
//!        │granted│
//!        ▼       ▼
//!     ┌─────────────┐   lease or max_lease over / another token / not the owner there
//!     │    Owned    │──────────────────────────────────────────────────────────▶ the guard is lost
//!     └──────┬──────┘
//!            │ the guard is dropped
//!            ▼
//!     Releasing: no entry, but a LockRequest::Release until its reply, or for two leases
//! ```
//!
//! (1) The server does not know the waiter, because its data was lost.
//!
//! Every way out ends in *Releasing*, except the rejections (taken, queue full), after which the server has
//! nothing to release. Redis is the source of truth for the state of a key:
//!
//! - *free*: there is no owner and no waiter;
//! - *owned*: `lk:{scope:id}` contains the owner's id and token, and its TTL is the owner's lease;
//! - *queued*: also, `lk:{scope:id}:q` lists the waiters in order, and `lk:{scope:id}:w` has their deadlines;
//! - *handed over*: owned by a waiter, with the *claim* as its lease: the short lease after a hand-over,
//!   until the new owner first renews it.
//!
//! A release hands the key over, atomically, to the first waiter whose deadline has not passed. If the
//! owner's lease has expired, the next acquire of any caller does so, or the next renewal or release of a
//! waiter.
//!
//! # Wake-ups
//!
//! A hand-over publishes the grant on the channel of the waiter's instance. Ownership then starts at the
//! server's time of the grant, converted to a local instant that is not later. The notification is only a
//! hint: waiters also poll, when they renew their position every third of a lease, or 1 to 16 ms after the
//! owner's lease should have expired. A poll finds a grant whose notification was lost. A grant for a number
//! without an entry is released at once. One that is almost as old as the claim starts a poll: the key may
//! have another owner by now.
//!
//! # Leases
//!
//! An owner counts its lease from the time at which the request was sent, or from the grant, and ends it a
//! twentieth of a lease early. So a slow reply never extends it, and the owner stops before it expires on the
//! server. It renews after a third of its lease (or claim), and after a failed renewal again after a reply
//! timeout. A reply with another token ends ownership. So does a reply that it is not the owner, unless that
//! one was sent before the hand-over. Ownership ends at `max_lease` at the latest.
//!
//! # Failures
//!
//! - *Redis is down*: new calls fail at once. Callers without a reply wait at most half a reply timeout for a
//!   new connection, waiters one reply timeout. Owners keep their keys until their leases are over. Releases
//!   are kept for two leases; by then everything that they would release has expired on the server.
//! - *Redis is slow*: an acquire without a reply in time fails and is undone by a release. Three failures in
//!   a row open the circuit breaker, which means that Redis is down.
//! - *Redis is up again*: all retries are sent, and every owner and waiter is renewed, in batches. A new
//!   subscription does the same, because earlier notifications may be lost.
//! - *Redis is empty*, after a restart or a flush, or a replica that lacks the latest writes: waiters that it
//!   does not know acquire again, owners that it does not know lose their guards. Until then a key may have
//!   two owners.
//! - *A script is unknown*: the request is sent again with the script's text. *A value has a wrong type*: the
//!   keys of the lock are deleted, and the request is sent again.
//! - *This task panics*: callers get errors, guards are lost, and requests fail until the restart. Then the
//!   keys are released on the server. [`Command::Close`] does the same and ends the task.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use redis::Value;
use tokio::time::Instant;

#[cfg(doc)]
use super::entry::Entry;
use super::error::RedisError;
#[cfg(doc)]
use super::lock::Command;
use crate::Key;

/// Durations of the lock protocol. See [`RedisOptions`](super::RedisOptions).
#[derive(Clone, Copy)]
pub(super) struct Timing {
    pub(super) lease: Duration,
    pub(super) claim: Duration,
    pub(super) reply_timeout: Duration,
}

impl Timing {
    /// The part of a lease that an owner does not use: its clock and the server's may run at different
    /// speeds, and the owner needs time to notice the expiry.
    pub(super) fn margin(self) -> Duration {
        self.lease / 20
    }

    pub(super) fn renew_after(self) -> Duration {
        self.lease / 3
    }

    /// Pause before a failed request is retried on the same connection.
    pub(super) fn retry_after(self) -> Duration {
        self.reply_timeout
    }

    /// Longest wait of a caller without a reply for a new connection. The first reconnect starts at once.
    pub(super) fn reconnect_within(self) -> Duration {
        self.reply_timeout / 2
    }
}

/// One request to the server. A number identifies the caller's entry.
pub(super) enum LockRequest {
    /// Take the key or join its queue.
    Acquire(u64),
    /// Renew the lease or the queue position, and report it.
    Renew(u64),
    /// Give up the key or the queue position. The caller's entry is already gone.
    Release { number: u64, key: Key, since: Instant },
    /// Delete values that no script of this crate has written.
    DeleteCorrupt(Key),
}

impl LockRequest {
    /// The key whose values it deletes.
    pub(super) fn corrupt_key(&self) -> Option<&Key> {
        match self {
            Self::DeleteCorrupt(key) => Some(key),
            Self::Acquire(_) | Self::Renew(_) | Self::Release { .. } => None,
        }
    }
}

/// Requests sent in one pipeline.
pub(super) struct Batch {
    pub(super) requests: Vec<LockRequest>,
    pub(super) sent: Instant,
}

/// A batch in flight.
pub(super) type InFlight = Pin<Box<dyn Future<Output = (Batch, Result<Vec<Value>, RedisError>)> + Send>>;
