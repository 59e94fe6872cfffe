//! The requests that the actor sends to Redis, and the handling of their replies.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::Instant;

use super::actor::Actor;
use super::entry::{ClockSample, Entry, Ownership, State};
use super::error::RedisError;
use super::protocol::{Batch, InFlight, LockRequest};
use super::reply::{AcquireReply, Numbers, ReleaseReply, RenewReply};
use super::scripts::Script;
use super::{keys, lock::Lease};
use crate::limit::{POLL_SPREAD_MILLIS_MAX, RENEWALS_PER_BATCH_MAX, REQUESTS_PER_BATCH_MAX};
use crate::{Key, LockError};

impl Actor {
    /// Takes the next batch from the outbox and the renewals; the future sends it. `None` if there is nothing
    /// to send.
    pub(super) fn send(&mut self) -> Option<InFlight> {
        let mut requests = Vec::new();
        let mut pipeline = redis::pipe();
        let now = Instant::now();
        let mut renewals = 0;
        while requests.len() < REQUESTS_PER_BATCH_MAX
            && renewals < RENEWALS_PER_BATCH_MAX
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
        let connection = Arc::clone(&self.connection);
        let batch = Batch { requests, sent: now };
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
            match Numbers::try_from(value) {
                Ok(numbers) => self.on_reply(&request, numbers, sent),
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

    fn on_reply(&mut self, request: &LockRequest, numbers: Numbers, sent: Instant) {
        match request {
            LockRequest::Acquire(number) => match AcquireReply::try_from(numbers) {
                Ok(reply) => self.on_acquire_reply(*number, reply, sent),
                Err(error) => self.fail(*number, &error),
            },
            LockRequest::Renew(number) => self.on_renew_reply(*number, RenewReply::try_from(numbers), sent),
            LockRequest::Release { .. } => {
                let is_handover = matches!(ReleaseReply::try_from(numbers), Ok(ReleaseReply::HandedOver));
                self.connection.counters.handovers.add(is_handover.into());
            }
            LockRequest::DeleteCorrupt(_) => {}
        }
    }

    fn on_acquire_reply(&mut self, number: u64, reply: AcquireReply, sent: Instant) {
        let Some(entry) = self.entries.get(&number) else { return };
        match reply {
            AcquireReply::Owned { token, waiting } => {
                let lease = self.lease_of(entry, sent);
                self.start_ownership(number, Ownership { token, waiting, from: sent, lease });
            }
            AcquireReply::Queued { position, owner_lease, server_micros } => {
                self.on_queued(number, position, owner_lease, ClockSample { sent, server_micros });
            }
            AcquireReply::Taken { position } => self.reject(number, LockError::Timeout { position }),
            AcquireReply::QueueFull { position } => self.reject(number, LockError::QueueFull { position }),
        }
    }

    fn reject(&mut self, number: u64, error: LockError) {
        if let Some(Entry { state: State::Requested { caller, .. }, .. }) = self.entries.remove(&number) {
            self.reply_error(caller, error);
        }
    }

    fn on_queued(&mut self, number: u64, position: usize, owner_lease: Duration, queued_at: ClockSample) {
        let Some(mut entry) = self.entries.remove(&number) else { return };
        let State::Requested { caller, grant } = entry.state else { return };
        entry.state = State::Queued { caller, position, queued_at };
        self.entries.insert(number, entry);
        match grant {
            Some(grant) => self.accept_grant(number, grant, queued_at.local_instant(grant.server_micros)),
            None => self.schedule_poll(number, owner_lease, queued_at.sent),
        }
    }

    /// Polls again when the queue position has to be renewed, or earlier when the owner's lease has expired,
    /// which the server does not notify. The numbers spread the polls of many waiters.
    fn schedule_poll(&mut self, number: u64, owner_lease: Duration, sent: Instant) {
        let spread = Duration::from_millis(1 + number % POLL_SPREAD_MILLIS_MAX);
        let owner_expired = Instant::now() + owner_lease + spread;
        self.schedule_bounded(number, owner_expired.min(sent + self.timing.renew_after()));
    }

    fn on_renew_reply(&mut self, number: u64, reply: Result<RenewReply, RedisError>, sent: Instant) {
        let Some(entry) = self.entries.get(&number) else { return };
        let duration = self.lease_of(entry, sent);
        match (&entry.state, reply) {
            (
                State::Owned { token: owned, lease, deadline, .. },
                Ok(RenewReply::Owned { token, waiting }),
            ) if *owned == token => {
                let ends = (sent + duration.saturating_sub(self.timing.margin())).min(*deadline);
                let lease: Arc<Lease> = lease.clone();
                lease.set_contended(entry.is_contended(waiting, sent));
                if lease.renew(ends) {
                    self.schedule_bounded(number, sent + self.timing.renew_after());
                } else {
                    self.fail(number, &RedisError::Timeout);
                }
            }
            // Sent before the key was handed over: the grant notification overtook this reply.
            (State::Owned { token, .. }, Ok(RenewReply::Queued { server_micros, .. }))
                if server_micros <= *token => {}
            (State::Owned { .. }, _) => self.fail(number, &RedisError::Protocol),
            (State::Queued { .. }, Ok(RenewReply::Owned { token, waiting })) => {
                self.connection.counters.grants_polled.add(1);
                self.start_ownership(number, Ownership { token, waiting, from: sent, lease: duration });
            }
            (State::Queued { .. }, Ok(RenewReply::Queued { owner_lease, .. })) => {
                self.schedule_poll(number, owner_lease, sent);
            }
            (State::Queued { .. }, Ok(RenewReply::Neither) | Err(_)) => self.requeue(number),
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
