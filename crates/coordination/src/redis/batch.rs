//! The requests that the actor sends to Redis, and the handling of their replies.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::Instant;

use super::actor::{Actor, InFlight};
use super::entry::{ClockSample, Entry, Ownership, State};
use super::error::RedisError;
use super::scripts::Script;
use super::{keys, lock::Lease};
use crate::{Key, LockError};

/// Most requests in one round trip: a few milliseconds of the server's time.
const BATCH_MAX: usize = 512;
/// Most renewals among them. A hand-over waits for the reply to the batch in flight, and renewals can wait; this
/// number costs it a fraction of a millisecond. Ten thousand waiters still renew within a tenth of a lease.
const RENEWALS_MAX: usize = 32;

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
    fn corrupt_key(&self) -> Option<&Key> {
        match self {
            Self::DeleteCorrupt(key) => Some(key),
            Self::Acquire(_) | Self::Renew(_) | Self::Release { .. } => None,
        }
    }
}

/// Requests sent in one pipeline.
pub(super) struct Batch {
    requests: Vec<LockRequest>,
    sent: Instant,
}

/// The reply of a script. Each script documents its numbers; missing ones are zero.
pub(super) struct Reply {
    what: u64,
    first: u64,
    second: u64,
    /// The server's time in microseconds. A token is the server's time at which its ownership began, or later.
    now: u64,
}

impl Reply {
    fn read(value: Value) -> Result<Self, RedisError> {
        let number = |value: &Value| match value {
            // The time to live of a key that no longer exists is negative.
            Value::Int(number) => Ok(u64::try_from(*number).unwrap_or(0)),
            _ => Err(RedisError::Protocol),
        };
        let numbers = match value.extract_error()? {
            Value::Array(values) => values.iter().map(number).collect::<Result<Vec<u64>, _>>()?,
            Value::Int(_) => vec![0],
            _ => return Err(RedisError::Protocol),
        };
        let at = |index: usize| numbers.get(index).copied().unwrap_or(0);
        Ok(Self { what: at(0), first: at(1), second: at(2), now: at(3) })
    }
}

impl Actor {
    /// Takes the next batch from the outbox and the renewals; the future sends it. `None` if there is nothing to
    /// send.
    pub(super) fn send(&mut self) -> Option<InFlight> {
        let (mut requests, mut pipeline, now) = (Vec::new(), redis::pipe(), Instant::now());
        let mut renewals = 0;
        while requests.len() < BATCH_MAX
            && renewals < RENEWALS_MAX
            && let Some(request) =
                self.outbox.pop_front().or_else(|| self.renewals.pop_front().map(LockRequest::Renew))
        {
            if let Some(command) = self.command(&request, now) {
                pipeline.add_command(command);
                renewals += usize::from(matches!(request, LockRequest::Renew(_)));
                requests.push(request);
            }
        }
        if requests.is_empty() {
            return None;
        }
        self.send_text = false;
        let (connection, batch) = (Arc::clone(&self.connection), Batch { requests, sent: now });
        Some(Box::pin(async move {
            let result = connection.query_pipeline(&pipeline).await;
            (batch, result)
        }))
    }

    /// The Redis command of a request; `None` if the request is obsolete.
    fn command(&self, request: &LockRequest, now: Instant) -> Option<Cmd> {
        let scripts = &self.connection.scripts;
        let start = |script: &Script, key: &Key, number: u64, lease: Duration| {
            let timing = self.timing;
            let mut command = script.command(self.send_text);
            command.arg(3).arg(&keys::lock(key)).arg(format!("{}.{number}", self.instance));
            for time in [lease, timing.claim, timing.lease] {
                command.arg(u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1));
            }
            command.arg(keys::CHANNEL_PREFIX);
            command
        };
        match request {
            LockRequest::Acquire(number) => {
                let entry = self.entries.get(number)?;
                let State::Requested { .. } = entry.state else { return None };
                let mut command = start(&scripts.acquire, &entry.key, *number, self.lease_of(entry, now));
                command.arg(entry.queue_max).arg(u8::from(entry.may_queue));
                Some(command)
            }
            LockRequest::Renew(number) => {
                let entry = self.entries.get(number)?;
                Some(start(&scripts.renew, &entry.key, *number, self.lease_of(entry, now)))
            }
            LockRequest::Release { since, .. } if self.is_expired_on_server(*since, now) => None,
            LockRequest::Release { number, key, .. } => {
                Some(start(&scripts.release, key, *number, self.timing.lease))
            }
            LockRequest::DeleteCorrupt(key) => {
                let mut unlink = redis::cmd("UNLINK");
                unlink.arg(&keys::lock(key));
                Some(unlink)
            }
        }
    }

    /// The lease that the server sets for this owner at `now`: no longer than ownership may last.
    fn lease_of(&self, entry: &Entry, now: Instant) -> Duration {
        let left = match &entry.state {
            State::Owned { deadline, .. } => deadline.saturating_duration_since(now),
            State::Requested { .. } | State::Queued { .. } => entry.max_lease,
        };
        self.timing.lease.min(left.saturating_add(self.timing.margin()))
    }

    pub(super) fn on_batch_result(&mut self, batch: Batch, result: Result<Vec<Value>, RedisError>) {
        let Batch { requests, sent } = batch;
        let values = match result {
            Ok(values) => values,
            Err(error) => {
                for request in requests {
                    self.on_request_failure(request, &error);
                }
                return;
            }
        };
        let mut resend = Vec::new();
        let deleted: Vec<Key> = requests.iter().filter_map(LockRequest::corrupt_key).cloned().collect();
        for (request, value) in requests.into_iter().zip(values) {
            match Reply::read(value) {
                Ok(reply) => self.on_reply(&request, &reply, sent),
                Err(error) if error.is_unknown_script() => {
                    self.send_text = true;
                    resend.push(request);
                }
                // Once: a value that reappears at once or cannot be deleted is an ordinary failure.
                Err(error) if error.is_wrong_type() => match self.delete_corrupt_key(&request) {
                    Some(LockRequest::DeleteCorrupt(key)) if deleted.contains(&key) => {
                        self.on_request_failure(request, &error);
                    }
                    delete => {
                        resend.extend(delete);
                        resend.push(request);
                    }
                },
                Err(error) => self.on_request_failure(request, &error),
            }
        }
        // At the front of the outbox, so that the order of requests is kept.
        resend.into_iter().rev().for_each(|request| self.outbox.push_front(request));
    }

    fn delete_corrupt_key(&self, request: &LockRequest) -> Option<LockRequest> {
        self.connection.counters.corrupt_values.add(1);
        let key = match request {
            LockRequest::Acquire(number) | LockRequest::Renew(number) => {
                self.entries.get(number)?.key.clone()
            }
            LockRequest::Release { key, .. } | LockRequest::DeleteCorrupt(key) => key.clone(),
        };
        Some(LockRequest::DeleteCorrupt(key))
    }

    /// The outcome of the request is unknown: retries it if there is time, otherwise undoes it.
    fn on_request_failure(&mut self, request: LockRequest, error: &RedisError) {
        let now = Instant::now();
        match request {
            LockRequest::Acquire(number) => match self.entries.get(&number) {
                Some(entry) if error.is_disconnect() && now < entry.check_at => self.retry(request),
                Some(_) => self.fail(number, error),
                None => {}
            },
            LockRequest::Renew(number) => self.schedule_bounded(number, now + self.timing.reply_timeout),
            LockRequest::Release { .. } => self.retry(request),
            LockRequest::DeleteCorrupt(_) => {}
        }
    }

    fn on_reply(&mut self, request: &LockRequest, reply: &Reply, sent: Instant) {
        match request {
            LockRequest::Acquire(number) => self.on_acquire_reply(*number, reply, sent),
            LockRequest::Renew(number) => self.on_renew_reply(*number, reply, sent),
            LockRequest::Release { .. } => self.connection.counters.handovers.add((reply.what == 1).into()),
            LockRequest::DeleteCorrupt(_) => {}
        }
    }

    fn on_acquire_reply(&mut self, number: u64, reply: &Reply, sent: Instant) {
        let Some(entry) = self.entries.get(&number) else { return };
        let (lease, position) =
            (self.lease_of(entry, sent), usize::try_from(reply.first).unwrap_or(usize::MAX));
        match reply.what {
            1 => {
                let (token, waiting) = (reply.first, reply.second);
                self.start_ownership(number, Ownership { token, waiting, from: sent, lease });
            }
            2 => self.on_queued(number, reply, sent),
            3 => self.reject(number, LockError::Timeout { position }),
            4 => self.reject(number, LockError::QueueFull { position }),
            _ => self.fail(number, &RedisError::Protocol),
        }
    }

    fn reject(&mut self, number: u64, error: LockError) {
        if let Some(Entry { state: State::Requested { caller, .. }, .. }) = self.entries.remove(&number) {
            self.reply_error(caller, error);
        }
    }

    fn on_queued(&mut self, number: u64, reply: &Reply, sent: Instant) {
        let Some(mut entry) = self.entries.remove(&number) else { return };
        let State::Requested { caller, grant } = entry.state else { return };
        let position = usize::try_from(reply.first).unwrap_or(usize::MAX);
        let queued_at = ClockSample { sent, server_micros: reply.now };
        entry.state = State::Queued { caller, position, queued_at };
        self.entries.insert(number, entry);
        match grant {
            Some(grant) => self.accept_grant(number, grant, queued_at.local_instant(grant.server_micros)),
            None => self.wait_for_owner(number, reply, sent),
        }
    }

    /// Polls again when the queue position has to be renewed, or earlier when the owner's lease has expired,
    /// which the server does not notify. The numbers spread the polls of many waiters over 16 ms.
    fn wait_for_owner(&mut self, number: u64, reply: &Reply, sent: Instant) {
        let owner_expired = Instant::now() + Duration::from_millis(reply.second + 1 + number % 16);
        self.schedule_bounded(number, owner_expired.min(sent + self.timing.renew_after()));
    }

    fn on_renew_reply(&mut self, number: u64, reply: &Reply, sent: Instant) {
        let Some(entry) = self.entries.get(&number) else { return };
        let duration = self.lease_of(entry, sent);
        match (&entry.state, reply.what) {
            (State::Owned { token, lease, deadline, .. }, 1) if *token == reply.first => {
                let ends = (sent + duration.saturating_sub(self.timing.margin())).min(*deadline);
                let lease: Arc<Lease> = lease.clone();
                lease.set_contended(entry.is_contended(reply.second, sent));
                if lease.renew(ends) {
                    self.schedule_bounded(number, sent + self.timing.renew_after());
                } else {
                    self.fail(number, &RedisError::Timeout);
                }
            }
            // Sent before the key was handed over: the grant notification overtook this reply.
            (State::Owned { token, .. }, 2) if reply.now <= *token => {}
            (State::Owned { .. }, _) => self.fail(number, &RedisError::Protocol),
            (State::Queued { .. }, 1) => {
                self.connection.counters.grants_polled.add(1);
                let (token, waiting) = (reply.first, reply.second);
                self.start_ownership(number, Ownership { token, waiting, from: sent, lease: duration });
            }
            (State::Queued { .. }, 2) => self.wait_for_owner(number, reply, sent),
            (State::Queued { .. }, _) => self.requeue(number),
            (State::Requested { .. }, _) => {}
        }
    }

    /// Joins the queue again: the server does not know this waiter, e.g. because its data was deleted.
    fn requeue(&mut self, number: u64) {
        let Some(mut entry) = self.entries.remove(&number) else { return };
        if let State::Queued { caller, .. } = entry.state {
            self.connection.counters.requeued.add(1);
            let reply_by = Instant::now() + self.timing.reply_timeout * 2;
            entry.state = State::Requested { caller, grant: None };
            self.entries.insert(number, entry);
            self.schedule(number, reply_by);
            self.outbox.push_back(LockRequest::Acquire(number));
        }
    }
}
