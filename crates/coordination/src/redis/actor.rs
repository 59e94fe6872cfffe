//! The single task of a process that sends lock commands to Redis. Its protocol is described in
//! [`super::protocol`].

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use supervisor::Work;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::connection::Connection;
use super::entry::{Entry, Grant, Ownership, State};
use super::error::RedisError;
use super::lock::{AcquireRequest, Caller, Command, Lease, RedisGuard};
use super::notifications::Notification;
use super::protocol::{Batch, InFlight, LockRequest, Timing};
use crate::limit::COMMANDS_PER_STEP_MAX;
use crate::{Key, LockError, LockGuard, Unavailable};

/// The state of all lock requests and owned locks of this process. See [`super::protocol`].
pub(super) struct Actor {
    pub(super) connection: Arc<Connection>,
    pub(super) timing: Timing,
    pub(super) instance: String,
    /// Cloned into every guard, which sends its release here.
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) entries: HashMap<u64, Entry>,
    /// The times at which entries are checked. A timer that fires before [`Entry::check_at`] was postponed
    /// and is ignored.
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    pub(super) outbox: VecDeque<LockRequest>,
    /// Failed requests in the order in which they are retried.
    retries: VecDeque<(Instant, LockRequest)>,
    /// Entries to renew once the outbox is empty.
    pub(super) renewals: VecDeque<u64>,
    /// The server does not know a script; the next batch sends the scripts' text.
    pub(super) send_text: bool,
    closing: bool,
}

/// The actor and its two input channels. They outlive a panic of the task.
pub(super) struct Worker {
    pub(super) actor: Actor,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) notifications: mpsc::UnboundedReceiver<Notification>,
}

impl Work for Worker {
    async fn run(&mut self) {
        self.actor.reset();
        self.actor.run(&mut self.commands, &mut self.notifications).await;
    }

    /// Fails requests at once, as while the server is down: no caller waits for the restart.
    async fn serve_while_down(&mut self) {
        self.actor.reset();
        while let Some(command) = self.commands.recv().await {
            match command {
                Command::Acquire(requests) => {
                    for AcquireRequest { caller, .. } in requests {
                        self.actor.reply_error(caller, Unavailable::from(RedisError::Restarting).into());
                    }
                }
                Command::Release(_) | Command::Close => self.actor.on_command(command),
            }
        }
    }
}

enum Event {
    Timer,
    Reply(Batch, Result<Vec<Value>, RedisError>),
    Command,
    Notification(Notification),
    Connection,
}

impl Actor {
    pub(super) fn new(
        connection: Arc<Connection>,
        timing: Timing,
        instance: String,
        commands: mpsc::UnboundedSender<Command>,
    ) -> Self {
        Self {
            connection,
            timing,
            instance,
            commands,
            entries: HashMap::new(),
            timers: BinaryHeap::new(),
            outbox: VecDeque::new(),
            retries: VecDeque::new(),
            renewals: VecDeque::new(),
            send_text: false,
            closing: false,
        }
    }

    /// Runs the event loop. Returns after [`Command::Close`], once all releases were sent and replied to, or
    /// there is no connection.
    async fn run(
        &mut self,
        commands: &mut mpsc::UnboundedReceiver<Command>,
        notifications: &mut mpsc::UnboundedReceiver<Notification>,
    ) {
        let connection = Arc::clone(&self.connection);
        let mut in_flight = None::<InFlight>;
        let mut epoch = None;
        let mut received = Vec::new();
        loop {
            // Before sending: a request on a lost connection fails immediately, without any wait.
            let current = connection.epoch();
            if current != epoch {
                epoch = current;
                self.on_connection_change(current.is_some());
            }
            self.move_due_retries(Instant::now());
            if in_flight.is_none() && epoch.is_some() {
                in_flight = self.send();
            }
            let is_drained = self.outbox.is_empty() && self.retries.is_empty();
            if self.closing && in_flight.is_none() && (is_drained || epoch.is_none()) {
                return;
            }
            let timer = self.next_timer();
            let event = tokio::select! {
                biased;
                () = sleep_until(timer) => Event::Timer,
                () = connection.wait_until_changed(epoch) => Event::Connection,
                (batch, result) = next_reply(&mut in_flight) => Event::Reply(batch, result),
                1.. = commands.recv_many(&mut received, COMMANDS_PER_STEP_MAX) => Event::Command,
                Some(notification) = notifications.recv() => Event::Notification(notification),
            };
            // Timers first: an expired owner must not keep its key from the request handled below.
            self.run_timers(Instant::now());
            match event {
                Event::Timer | Event::Connection => {}
                Event::Reply(batch, result) => {
                    in_flight = None;
                    self.on_batch_result(batch, result);
                }
                Event::Command => received.drain(..).for_each(|command| self.on_command(command)),
                Event::Notification(notification) => self.on_notification(notification),
            }
        }
    }

    /// After a panic: fails all callers, ends all leases and releases on the server what they owned.
    fn reset(&mut self) {
        self.timers.clear();
        self.renewals.clear();
        self.send_text = false;
        self.outbox.extend(self.retries.drain(..).map(|(_, request)| request));
        self.outbox.retain(|request| matches!(request, LockRequest::Release { .. }));
        let numbers: Vec<u64> = self.entries.keys().copied().collect();
        for number in numbers {
            self.fail(number, &RedisError::Restarting);
        }
    }

    fn next_timer(&self) -> Instant {
        let entry = self.timers.peek().map(|Reverse((at, _))| *at);
        let retry = self.retries.front().map(|(at, _)| *at);
        let next = entry.into_iter().chain(retry).min();
        next.unwrap_or_else(|| Instant::now() + Duration::from_secs(1))
    }

    /// Retries after a pause, or as soon as there is a new connection.
    pub(super) fn retry(&mut self, request: LockRequest) {
        self.retries.push_back((Instant::now() + self.timing.retry_after(), request));
    }

    /// Moves due retries to the outbox, where they stay while there is no connection.
    fn move_due_retries(&mut self, now: Instant) {
        while let Some((_, request)) = self.retries.pop_front_if(|(at, _)| *at <= now) {
            self.outbox.push_back(request);
        }
    }

    /// Sets the entry's next check to this instant; an earlier timer is ignored.
    pub(super) fn schedule(&mut self, number: u64, at: Instant) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.check_at = at;
            self.timers.push(Reverse((at, number)));
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Acquire(requests) => requests.into_iter().for_each(|request| self.on_acquire(request)),
            Command::Release(number) => self.on_release(number),
            Command::Close => {
                self.closing = true;
                let numbers: Vec<u64> = self.entries.keys().copied().collect();
                for number in numbers {
                    self.fail(number, &RedisError::Closed);
                }
            }
        }
    }

    fn on_acquire(&mut self, request: AcquireRequest) {
        if self.closing {
            return self.reply_error(request.caller, Unavailable::from(RedisError::Closed).into());
        }
        // Twice the timeout: a batch may be in flight, and this request goes with the next one.
        let reply_by = Instant::now() + self.timing.reply_timeout * 2;
        let (number, entry) = Entry::new(request, reply_by);
        self.entries.insert(number, entry);
        self.schedule(number, reply_by);
        self.outbox.push_back(LockRequest::Acquire(number));
    }

    /// The caller was dropped, or its guard.
    fn on_release(&mut self, number: u64) {
        if let Some(entry) = self.entries.remove(&number) {
            if let State::Owned { since, lease, .. } = &entry.state {
                self.connection.counters.lock_owned_micros.add_time(since.elapsed());
                lease.end();
            }
            self.release(number, entry.key);
        }
    }

    /// Releases on the server whatever this number has there: ownership or a queue position.
    pub(super) fn release(&mut self, number: u64, key: Key) {
        let now = Instant::now();
        // Without a connection only releases accumulate, so those that have expired are dropped here.
        while let Some(LockRequest::Release { since, .. }) = self.outbox.front()
            && self.is_expired_on_server(*since, now)
        {
            self.outbox.pop_front();
        }
        self.outbox.push_back(LockRequest::Release { number, key, since: now });
    }

    /// True if everything released at `since` has expired on the server without the release.
    pub(super) fn is_expired_on_server(&self, since: Instant, now: Instant) -> bool {
        now.duration_since(since) > self.timing.lease * 2
    }

    pub(super) fn reply_error(&self, caller: Caller, error: LockError) {
        let counters = &self.connection.counters;
        match &error {
            LockError::Timeout { .. } => counters.lock_timeouts.add(1),
            LockError::QueueFull { .. } => counters.queue_rejections.add(1),
            _ => counters.locks_unavailable.add(1),
        }
        // A send error means that the caller was dropped.
        let _ = caller.reply.send(Err(error));
    }

    /// Ends the entry because of `error`: its caller gets the error, or its guard is lost.
    pub(super) fn fail(&mut self, number: u64, error: &RedisError) {
        let Some(entry) = self.entries.remove(&number) else { return };
        match entry.state {
            State::Requested { caller, .. } | State::Queued { caller, .. } => {
                self.reply_error(caller, Unavailable::from(error.clone()).into());
            }
            State::Owned { lease, since, .. } => {
                lease.end();
                self.connection.counters.leases_lost.add(1);
                self.connection.counters.lock_owned_micros.add_time(since.elapsed());
            }
        }
        self.release(number, entry.key);
    }

    fn run_timers(&mut self, now: Instant) {
        while let Some(Reverse((at, number))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            if self.entries.get(&number).is_some_and(|entry| entry.check_at <= now) {
                self.on_timer(number, now);
            }
        }
    }

    fn on_timer(&mut self, number: u64, now: Instant) {
        let Some(entry) = self.entries.get(&number) else { return };
        match &entry.state {
            State::Requested { .. } => self.fail(number, &RedisError::Timeout),
            State::Queued { caller, .. } if caller.deadline <= now => self.time_out(number),
            State::Queued { .. } if !self.connection.is_up() => self.fail(number, &RedisError::Down),
            State::Owned { lease, .. } if lease.ends() <= now => self.fail(number, &RedisError::Timeout),
            State::Queued { .. } | State::Owned { .. } => self.renew(number, now),
        }
    }

    fn time_out(&mut self, number: u64) {
        if let Some(Entry { key, state: State::Queued { caller, position, .. }, .. }) =
            self.entries.remove(&number)
        {
            self.reply_error(caller, LockError::Timeout { position });
            self.release(number, key);
        }
    }

    /// Renews a lease or a queue position. The reply also reports what the server has for this number.
    fn renew(&mut self, number: u64, now: Instant) {
        self.renewals.push_back(number);
        self.schedule_bounded(number, now + self.timing.renew_after());
    }

    /// Schedules the next check at this instant, or at the end of the wait or lease if that is earlier.
    pub(super) fn schedule_bounded(&mut self, number: u64, at: Instant) {
        let bound = match self.entries.get(&number).map(|entry| &entry.state) {
            Some(State::Queued { caller, .. }) => caller.deadline,
            Some(State::Owned { lease, .. }) => lease.ends(),
            Some(State::Requested { .. }) | None => return,
        };
        self.schedule(number, at.min(bound));
    }

    /// On a new connection or subscription every waiter and owner is renewed once, in batches. Without a
    /// connection the checks of all entries are brought forward, so that callers soon continue without the
    /// lock.
    fn on_connection_change(&mut self, up: bool) {
        if up {
            self.outbox.extend(self.retries.drain(..).map(|(_, request)| request));
        }
        let now = Instant::now();
        let mut numbers = self.entries.keys().copied().collect::<Vec<u64>>();
        numbers.sort_unstable();
        for number in numbers {
            if !up {
                self.schedule_without_connection(number, now);
                continue;
            }
            let state = self.entries.get(&number).map(|entry| &entry.state);
            if matches!(state, Some(State::Queued { .. } | State::Owned { .. })) {
                self.renew(number, now);
            }
        }
    }

    /// Callers that wait for a reply or for a key continue without the lock soon, unless there is a new
    /// connection by then.
    fn schedule_without_connection(&mut self, number: u64, now: Instant) {
        match self.entries.get(&number).map(|entry| (&entry.state, entry.check_at)) {
            Some((State::Requested { .. }, reply_by)) => {
                self.schedule(number, reply_by.min(now + self.timing.reconnect_within()));
            }
            Some((State::Queued { .. } | State::Owned { .. }, _)) => {
                self.schedule_bounded(number, now + self.timing.reply_timeout);
            }
            None => {}
        }
    }

    fn on_notification(&mut self, notification: Notification) {
        match notification {
            Notification::Subscribed => self.on_connection_change(self.connection.is_up()),
            Notification::Waiters { number, count } => {
                if let Some(entry) = self.entries.get_mut(&number) {
                    entry.notified_contention = Some((Instant::now(), count > 0));
                    if let State::Owned { lease, .. } = &entry.state {
                        lease.set_contended(count > 0);
                    }
                }
            }
            Notification::Granted { number, key, grant } => self.on_grant(number, key, grant),
        }
    }

    fn on_grant(&mut self, number: u64, key: Key, granted: Grant) {
        match self.entries.get_mut(&number).map(|entry| &mut entry.state) {
            Some(State::Requested { grant, .. }) => *grant = Some(granted),
            Some(State::Queued { queued_at, .. }) => {
                let from = queued_at.local_instant(granted.server_micros);
                self.accept_grant(number, granted, from);
            }
            Some(State::Owned { .. }) => {}
            None => {
                self.connection.counters.grants_returned.add(1);
                self.release(number, key);
            }
        }
    }

    /// Starts the ownership that was handed over at `from`. Until the first renewal its lease on the server
    /// is only the short claim.
    pub(super) fn accept_grant(&mut self, number: u64, grant: Grant, from: Instant) {
        let now = Instant::now();
        let lease = self.timing.claim;
        if from + lease <= now + self.timing.margin() {
            // The notification is old; the key may belong to another waiter by now.
            return self.renew(number, now);
        }
        let Grant { token, waiting, .. } = grant;
        self.start_ownership(number, Ownership { token, waiting, from, lease });
    }

    /// Gives a waiting caller its guard.
    pub(super) fn start_ownership(&mut self, number: u64, ownership: Ownership) {
        let Ownership { token, waiting, from, lease: duration } = ownership;
        let Some(entry) = self.entries.get_mut(&number) else { return };
        let deadline = from + entry.max_lease;
        let ends = (from + duration.saturating_sub(self.timing.margin())).min(deadline);
        let lease = Lease::new(ends, entry.is_contended(waiting, from));
        let owned = State::Owned { token, lease: lease.clone(), since: Instant::now(), deadline };
        let caller = match std::mem::replace(&mut entry.state, owned) {
            State::Requested { caller, .. } => {
                self.connection.counters.locks_acquired_free.add(1);
                caller
            }
            State::Queued { caller, .. } => {
                self.connection.counters.locks_acquired_queued.add(1);
                self.connection.counters.lock_wait_micros.add_time(caller.since.elapsed());
                caller
            }
            owned @ State::Owned { .. } => {
                entry.state = owned;
                return;
            }
        };
        let backend = RedisGuard { number, lease, commands: self.commands.clone() };
        let guard = LockGuard::new(entry.key.clone(), token, backend);
        self.schedule_bounded(number, from + duration / 3);
        // If the caller was dropped, the guard is returned here, and dropping it releases the key.
        drop(caller.reply.send(Ok(guard)));
    }
}

/// The result of the batch in flight; pending while there is none.
async fn next_reply(in_flight: &mut Option<InFlight>) -> (Batch, Result<Vec<Value>, RedisError>) {
    match in_flight {
        Some(batch) => batch.await,
        None => std::future::pending().await,
    }
}
