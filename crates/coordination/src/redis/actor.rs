//! The one task of a process that speaks to the server about locks.
//!
//! Callers put wishes and farewells into a channel and wait for nothing but an answer, so a caller that is
//! dropped at any await has sent all there is to send. What is to be asked is gathered into batches, one at a
//! time on the wire: hence whatever concerns one caller (acquire, renew, leave) reaches the server in the order
//! in which it happened. All scripts may be sent twice, so an unknown outcome is asked again, or undone: after a
//! pause, or on the next connection, and never at once. A step of [`Actor::run`] that has nothing to wait for would
//! keep its thread from everything else.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use supervisor::Work;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::batch::{Ask, Batch};
use super::connection::Link;
use super::entry::{Entry, Grant, Stage};
use super::error::Trouble;
use super::lock::{Caller, Command, Lease, RedisHold, Request};
use super::notifications::Ring;
use crate::{Key, LockError, LockGuard, Unavailable};

/// Commands taken over in one step, so that a step ends however many come.
const COMMANDS_MAX: usize = 512;

/// How long things last. See [`RedisOptions`](super::RedisOptions).
#[derive(Clone, Copy)]
pub(super) struct Timing {
    pub(super) lease: Duration,
    pub(super) claim: Duration,
    pub(super) answer_timeout: Duration,
}

impl Timing {
    /// How much earlier than the server an owner counts its lease as over: the two clocks need not run alike,
    /// and an owner needs a moment to notice.
    pub(super) fn margin(self) -> Duration {
        self.lease / 20
    }

    pub(super) fn renew_after(self) -> Duration {
        self.lease / 3
    }

    /// The pause before something that failed is asked again on the same connection.
    fn retry_after(self) -> Duration {
        self.answer_timeout
    }

    /// How long a caller who has no answer yet waits for another connection: the first one is tried for at once.
    fn reconnect_within(self) -> Duration {
        self.answer_timeout / 2
    }
}

pub(super) struct Actor {
    pub(super) link: Arc<Link>,
    pub(super) timing: Timing,
    pub(super) instance: String,
    /// For tenures, which say here that they are over.
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) entries: HashMap<u64, Entry>,
    /// When to look at which entry; one that was put off is met here too early, and left alone.
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    pub(super) outbox: VecDeque<Ask>,
    /// What failed, in the order in which it is to be asked again.
    retries: VecDeque<(Instant, Ask)>,
    /// Who is to be renewed, when there is nothing more urgent.
    pub(super) renewals: VecDeque<u64>,
    /// The server has forgotten a script.
    pub(super) by_text: bool,
    closing: bool,
}

/// The actor and what reaches it, which outlives a panic.
pub(super) struct Worker {
    pub(super) actor: Actor,
    pub(super) asked: mpsc::UnboundedReceiver<Command>,
    pub(super) rung: mpsc::UnboundedReceiver<Ring>,
}

impl Work for Worker {
    async fn run(&mut self) {
        self.actor.start_over();
        self.actor.run(&mut self.asked, &mut self.rung).await;
    }

    /// Nobody waits for the restart: callers go on without the lock, as they do while the server is down.
    async fn serve_while_down(&mut self) {
        self.actor.start_over();
        while let Some(command) = self.asked.recv().await {
            match command {
                Command::Acquire(requests) => {
                    for Request { caller, .. } in requests {
                        self.actor.refuse(caller, Unavailable::from(Trouble::Restarting).into());
                    }
                }
                Command::Leave(_) | Command::Close => self.actor.asked(command),
            }
        }
    }
}

/// A batch on the wire.
pub(super) type InFlight = Pin<Box<dyn Future<Output = (Batch, Result<Vec<Value>, Trouble>)> + Send>>;

enum Event {
    Time,
    Answered(Batch, Result<Vec<Value>, Trouble>),
    Asked,
    Rung(Ring),
    Connection,
}

impl Actor {
    pub(super) fn new(
        link: Arc<Link>,
        timing: Timing,
        instance: String,
        commands: mpsc::UnboundedSender<Command>,
    ) -> Self {
        Self {
            link,
            timing,
            instance,
            commands,
            entries: HashMap::new(),
            timers: BinaryHeap::new(),
            outbox: VecDeque::new(),
            retries: VecDeque::new(),
            renewals: VecDeque::new(),
            by_text: false,
            closing: false,
        }
    }

    /// Works until it is told to close and everything is given back, or nobody listens any more.
    async fn run(
        &mut self,
        asked: &mut mpsc::UnboundedReceiver<Command>,
        bell: &mut mpsc::UnboundedReceiver<Ring>,
    ) {
        let link = Arc::clone(&self.link);
        let (mut in_flight, mut connection) = (None::<InFlight>, None);
        let mut commands = Vec::new();
        loop {
            // Before anything is sent: what is sent on a lost connection fails without any wait.
            let current = link.connection();
            if current != connection {
                connection = current;
                self.connection_changed(current.is_some());
            }
            self.retry_due(Instant::now());
            if in_flight.is_none() && connection.is_some() {
                in_flight = self.send();
            }
            let is_given_back = self.outbox.is_empty() && self.retries.is_empty();
            if self.closing && in_flight.is_none() && (is_given_back || connection.is_none()) {
                return;
            }
            let timer = self.next_timer();
            let event = tokio::select! {
                biased;
                () = sleep_until(timer) => Event::Time,
                () = link.changed(connection) => Event::Connection,
                (batch, outcome) = answer(&mut in_flight) => Event::Answered(batch, outcome),
                1.. = asked.recv_many(&mut commands, COMMANDS_MAX) => Event::Asked,
                Some(ring) = bell.recv() => Event::Rung(ring),
            };
            // First of all what time has brought: nobody is to find a key taken whose owner is overdue.
            self.look_at_due(Instant::now());
            match event {
                Event::Time | Event::Connection => {}
                Event::Answered(batch, outcome) => {
                    in_flight = None;
                    self.answered(batch, outcome);
                }
                Event::Asked => commands.drain(..).for_each(|command| self.asked(command)),
                Event::Rung(ring) => self.rung(ring),
            }
        }
    }

    /// After a panic: refuses all callers, ends all tenures and gives back on the server what they owned.
    fn start_over(&mut self) {
        self.timers.clear();
        self.renewals.clear();
        self.by_text = false;
        self.outbox.extend(self.retries.drain(..).map(|(_, ask)| ask));
        self.outbox.retain(|ask| matches!(ask, Ask::Leave { .. }));
        let numbers: Vec<u64> = self.entries.keys().copied().collect();
        for number in numbers {
            self.end(number, &Trouble::Restarting);
        }
    }

    fn next_timer(&self) -> Instant {
        let entry = self.timers.peek().map(|Reverse((at, _))| *at);
        let retry = self.retries.front().map(|(at, _)| *at);
        let next = entry.into_iter().chain(retry).min();
        next.unwrap_or_else(|| Instant::now() + Duration::from_secs(1))
    }

    /// Asks again after a pause, or as soon as there is another connection.
    pub(super) fn retry(&mut self, ask: Ask) {
        self.retries.push_back((Instant::now() + self.timing.retry_after(), ask));
    }

    /// Moves what is due to the outbox. While there is no connection it waits there.
    fn retry_due(&mut self, now: Instant) {
        while let Some((_, ask)) = self.retries.pop_front_if(|(at, _)| *at <= now) {
            self.outbox.push_back(ask);
        }
    }

    /// Looks at an entry again at this time, and not before.
    pub(super) fn look_again(&mut self, number: u64, at: Instant) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.next = at;
            self.timers.push(Reverse((at, number)));
        }
    }

    fn asked(&mut self, command: Command) {
        match command {
            Command::Acquire(requests) => requests.into_iter().for_each(|request| self.wished(request)),
            Command::Leave(number) => self.leave(number),
            Command::Close => {
                self.closing = true;
                let numbers: Vec<u64> = self.entries.keys().copied().collect();
                for number in numbers {
                    self.end(number, &Trouble::Closed);
                }
            }
        }
    }

    fn wished(&mut self, request: Request) {
        if self.closing {
            return self.refuse(request.caller, Unavailable::from(Trouble::Closed).into());
        }
        // A batch may be on the wire; this one goes with the next.
        let answer_by = Instant::now() + self.timing.answer_timeout * 2;
        let (number, entry) = Entry::asking(request, answer_by);
        self.entries.insert(number, entry);
        self.look_again(number, answer_by);
        self.outbox.push_back(Ask::Acquire(number));
    }

    /// The caller is gone, or its tenure over.
    fn leave(&mut self, number: u64) {
        if let Some(entry) = self.entries.remove(&number) {
            if let Stage::Held { since, lease, .. } = &entry.stage {
                self.link.counters.lock_owned_micros.add_time(since.elapsed());
                lease.end();
            }
            self.give_back(number, entry.key);
        }
    }

    /// Undoes on the server whatever this number may have there.
    pub(super) fn give_back(&mut self, number: u64, key: Key) {
        let now = Instant::now();
        // While there is no connection these are all that piles up.
        while let Some(Ask::Leave { since, .. }) = self.outbox.front()
            && self.is_forgotten(*since, now)
        {
            self.outbox.pop_front();
        }
        self.outbox.push_back(Ask::Leave { number, key, since: now });
    }

    /// Whether the server has forgotten by itself whatever was given up then.
    pub(super) fn is_forgotten(&self, since: Instant, now: Instant) -> bool {
        now.duration_since(since) > self.timing.lease * 2
    }

    pub(super) fn refuse(&self, caller: Caller, error: LockError) {
        let counters = &self.link.counters;
        match &error {
            LockError::Timeout { .. } => counters.lock_timeouts.add(1),
            LockError::QueueFull { .. } => counters.queue_rejections.add(1),
            _ => counters.locks_unavailable.add(1),
        }
        // Whoever does not wait any more needs no answer.
        let _ = caller.answer.send(Err(error));
    }

    /// Ends whatever this is, because of `trouble`.
    pub(super) fn end(&mut self, number: u64, trouble: &Trouble) {
        let Some(entry) = self.entries.remove(&number) else { return };
        match entry.stage {
            Stage::Asking { caller, .. } | Stage::Queued { caller, .. } => {
                self.refuse(caller, Unavailable::from(trouble.clone()).into());
            }
            Stage::Held { lease, since, .. } => {
                lease.end();
                self.link.counters.leases_lost.add(1);
                self.link.counters.lock_owned_micros.add_time(since.elapsed());
            }
        }
        self.give_back(number, entry.key);
    }

    fn look_at_due(&mut self, now: Instant) {
        while let Some(Reverse((at, number))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            if self.entries.get(&number).is_some_and(|entry| entry.next <= now) {
                self.due(number, now);
            }
        }
    }

    fn due(&mut self, number: u64, now: Instant) {
        let Some(entry) = self.entries.get(&number) else { return };
        match &entry.stage {
            Stage::Asking { .. } => self.end(number, &Trouble::Late),
            Stage::Queued { caller, .. } if caller.until <= now => self.time_out(number),
            Stage::Queued { .. } if !self.link.is_up() => self.end(number, &Trouble::Down),
            Stage::Held { lease, .. } if lease.ends() <= now => self.end(number, &Trouble::Late),
            Stage::Queued { .. } | Stage::Held { .. } => self.touch(number, now),
        }
    }

    fn time_out(&mut self, number: u64) {
        if let Some(Entry { key, stage: Stage::Queued { caller, place, .. }, .. }) =
            self.entries.remove(&number)
        {
            self.refuse(caller, LockError::Timeout { position: place });
            self.give_back(number, key);
        }
    }

    /// Renews a lease or a place, and asks what has become of it.
    fn touch(&mut self, number: u64, now: Instant) {
        self.renewals.push_back(number);
        self.plan(number, now + self.timing.renew_after());
    }

    /// Looks again at this time, or when the wait or the tenure is over.
    pub(super) fn plan(&mut self, number: u64, at: Instant) {
        let bound = match self.entries.get(&number).map(|entry| &entry.stage) {
            Some(Stage::Queued { caller, .. }) => caller.until,
            Some(Stage::Held { lease, .. }) => lease.ends(),
            Some(Stage::Asking { .. }) | None => return,
        };
        self.look_again(number, at.min(bound));
    }

    /// After a connection everybody asks once, in a batch; without one, waiters soon go on without the lock.
    fn connection_changed(&mut self, up: bool) {
        if up {
            self.outbox.extend(self.retries.drain(..).map(|(_, ask)| ask));
        }
        let (now, mut numbers) = (Instant::now(), self.entries.keys().copied().collect::<Vec<u64>>());
        numbers.sort_unstable();
        for number in numbers {
            if up {
                if self.entries.get(&number).is_some_and(|entry| !matches!(entry.stage, Stage::Asking { .. }))
                {
                    self.touch(number, now);
                }
            } else {
                self.plan_without_connection(number, now);
            }
        }
    }

    /// Whoever waits for an answer or for a key goes on without the lock soon, unless there is another connection.
    fn plan_without_connection(&mut self, number: u64, now: Instant) {
        match self.entries.get(&number).map(|entry| (&entry.stage, entry.next)) {
            Some((Stage::Asking { .. }, answer_by)) => {
                self.look_again(number, answer_by.min(now + self.timing.reconnect_within()));
            }
            Some((Stage::Queued { .. } | Stage::Held { .. }, _)) => {
                self.plan(number, now + self.timing.answer_timeout);
            }
            None => {}
        }
    }

    fn rung(&mut self, ring: Ring) {
        match ring {
            Ring::Subscribed => self.connection_changed(self.link.is_up()),
            Ring::Waiting { number, waiting } => {
                if let Some(entry) = self.entries.get_mut(&number) {
                    entry.rung = Some((Instant::now(), waiting > 0));
                    if let Stage::Held { lease, .. } = &entry.stage {
                        lease.set_contended(waiting > 0);
                    }
                }
            }
            Ring::Granted { number, key, grant } => self.granted(number, key, grant),
        }
    }

    fn granted(&mut self, number: u64, key: Key, grant: Grant) {
        match self.entries.get_mut(&number).map(|entry| &mut entry.stage) {
            Some(Stage::Asking { granted, .. }) => *granted = Some(grant),
            Some(Stage::Queued { asked, .. }) => {
                let from = asked.at(grant.server_micros);
                self.claim(number, grant, from);
            }
            Some(Stage::Held { .. }) => {}
            None => {
                self.link.counters.grants_returned.add(1);
                self.give_back(number, key);
            }
        }
    }

    /// Begins a tenure that was handed over at `from`, for which the server knows only the short claim yet.
    pub(super) fn claim(&mut self, number: u64, grant: Grant, from: Instant) {
        let now = Instant::now();
        if from + self.timing.claim <= now + self.timing.margin() {
            // The news is old; it may be somebody else's turn by now.
            return self.touch(number, now);
        }
        self.begin(number, grant.token, grant.waiting, (from, self.timing.claim));
    }

    /// Begins the tenure of a caller who waits for an answer. The lease is known to last this long from then on.
    pub(super) fn begin(&mut self, number: u64, token: u64, waiting: u64, lease: (Instant, Duration)) {
        let (from, lasts) = lease;
        let Some(entry) = self.entries.get_mut(&number) else { return };
        let overdue_at = from + entry.max_hold;
        let ends = (from + lasts.saturating_sub(self.timing.margin())).min(overdue_at);
        let lease = Lease::new(ends, entry.is_contended(waiting, from));
        let held = Stage::Held { token, lease: lease.clone(), since: Instant::now(), overdue_at };
        let caller = match std::mem::replace(&mut entry.stage, held) {
            Stage::Asking { caller, .. } => {
                self.link.counters.locks_acquired_free.add(1);
                caller
            }
            Stage::Queued { caller, .. } => {
                self.link.counters.locks_acquired_queued.add(1);
                self.link.counters.lock_wait_micros.add_time(caller.since.elapsed());
                caller
            }
            held @ Stage::Held { .. } => {
                entry.stage = held;
                return;
            }
        };
        let owned = RedisHold { number, lease, commands: self.commands.clone() };
        let tenure = LockGuard::new(entry.key.clone(), token, owned);
        self.plan(number, from + lasts / 3);
        // If the caller is gone the tenure comes back here and is dropped, which gives it up like any other.
        drop(caller.answer.send(Ok(tenure)));
    }
}

/// The answer to the batch on the wire, if there is one.
async fn answer(in_flight: &mut Option<InFlight>) -> (Batch, Result<Vec<Value>, Trouble>) {
    match in_flight {
        Some(batch) => batch.await,
        None => std::future::pending().await,
    }
}
