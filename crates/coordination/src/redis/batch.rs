//! What the actor asks, and what it makes of the answers.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::Instant;

use super::actor::{Actor, InFlight};
use super::entry::{Entry, Moment, Stage};
use super::error::Trouble;
use super::{keys, lock::Lease};
use crate::{Key, LockError};

/// Questions in one round trip: a few milliseconds of a server's time.
const BATCH_MAX: usize = 512;
/// Renewals among them. They can wait, and whoever hands over a key waits for the answer to what is on its way:
/// a fraction of a millisecond. Ten thousand waiters still renew within a tenth of a lease.
const RENEWALS_MAX: usize = 32;

/// One question about one caller, by its number.
pub(super) enum Ask {
    /// Own the key or stand in its queue.
    Acquire(u64),
    /// Renew, and say what there is.
    Touch(u64),
    /// Give up whatever there is. It needs no entry, as there is none any more.
    Leave { number: u64, key: Key, since: Instant },
    /// Remove what lies there that no script of ours has written.
    Clear(Key),
}

impl Ask {
    /// The key that it clears.
    fn cleared(&self) -> Option<&Key> {
        match self {
            Self::Clear(key) => Some(key),
            Self::Acquire(_) | Self::Touch(_) | Self::Leave { .. } => None,
        }
    }
}

/// Questions that travel together.
pub(super) struct Batch {
    asks: Vec<Ask>,
    sent: Instant,
}

/// What a script answers; what a number that is not there means, the script says.
pub(super) struct Reply {
    what: u64,
    first: u64,
    second: u64,
    /// The server's time in microseconds. A token is the server's time at which its tenure began, or later.
    now: u64,
}

impl Reply {
    fn read(value: Value) -> Result<Self, Trouble> {
        let number = |value: &Value| match value {
            // The time to live of a key that has gone since is negative.
            Value::Int(number) => Ok(u64::try_from(*number).unwrap_or(0)),
            _ => Err(Trouble::Nonsense),
        };
        let numbers = match value.extract_error()? {
            Value::Array(values) => values.iter().map(number).collect::<Result<Vec<u64>, _>>()?,
            Value::Int(_) => vec![0],
            _ => return Err(Trouble::Nonsense),
        };
        let at = |place: usize| numbers.get(place).copied().unwrap_or(0);
        Ok(Self { what: at(0), first: at(1), second: at(2), now: at(3) })
    }
}

impl Actor {
    /// Takes what is to be asked next, and a future that asks it.
    pub(super) fn send(&mut self) -> Option<InFlight> {
        let (mut asks, mut pipeline, now) = (Vec::new(), redis::pipe(), Instant::now());
        let mut renewals = 0;
        while asks.len() < BATCH_MAX
            && renewals < RENEWALS_MAX
            && let Some(ask) = self.outbox.pop_front().or_else(|| self.renewals.pop_front().map(Ask::Touch))
        {
            if let Some(command) = self.command(&ask, now) {
                pipeline.add_command(command);
                renewals += usize::from(matches!(ask, Ask::Touch(_)));
                asks.push(ask);
            }
        }
        if asks.is_empty() {
            return None;
        }
        self.by_text = false;
        let (link, batch) = (Arc::clone(&self.link), Batch { asks, sent: now });
        Some(Box::pin(async move {
            let outcome = link.ask_all(&pipeline).await;
            (batch, outcome)
        }))
    }

    /// The command for a question; `None` if it need not be asked any more.
    fn command(&self, ask: &Ask, now: Instant) -> Option<Cmd> {
        let scripts = &self.link.scripts;
        let start = |script: &super::scripts::Script, key: &Key, number: u64, lease: Duration| {
            let timing = self.timing;
            let mut call = script.call(self.by_text);
            call.arg(3).arg(&keys::lock(key)).arg(format!("{}.{number}", self.instance));
            for time in [lease, timing.claim, timing.lease] {
                call.arg(u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1));
            }
            call.arg(keys::CHANNEL_PREFIX);
            call
        };
        match ask {
            Ask::Acquire(number) => {
                let entry = self.entries.get(number)?;
                let Stage::Asking { .. } = entry.stage else { return None };
                let mut call = start(&scripts.acquire, &entry.key, *number, self.lease_of(entry, now));
                call.arg(entry.queue_max).arg(u8::from(entry.queues));
                Some(call)
            }
            Ask::Touch(number) => {
                let entry = self.entries.get(number)?;
                Some(start(&scripts.renew, &entry.key, *number, self.lease_of(entry, now)))
            }
            Ask::Leave { since, .. } if self.is_forgotten(*since, now) => None,
            Ask::Leave { number, key, .. } => Some(start(&scripts.release, key, *number, self.timing.lease)),
            Ask::Clear(key) => {
                let mut unlink = redis::cmd("UNLINK");
                unlink.arg(&keys::lock(key));
                Some(unlink)
            }
        }
    }

    /// How long the server shall believe in this owner from now on: no longer than the tenure may last.
    fn lease_of(&self, entry: &Entry, now: Instant) -> Duration {
        let left = match &entry.stage {
            Stage::Held { overdue_at, .. } => overdue_at.saturating_duration_since(now),
            Stage::Asking { .. } | Stage::Queued { .. } => entry.max_hold,
        };
        self.timing.lease.min(left.saturating_add(self.timing.margin()))
    }

    pub(super) fn answered(&mut self, batch: Batch, outcome: Result<Vec<Value>, Trouble>) {
        let Batch { asks, sent } = batch;
        let values = match outcome {
            Ok(values) => values,
            Err(trouble) => {
                for ask in asks {
                    self.failed(ask, &trouble);
                }
                return;
            }
        };
        let mut again = Vec::new();
        let cleared: Vec<Key> = asks.iter().filter_map(Ask::cleared).cloned().collect();
        for (ask, value) in asks.into_iter().zip(values) {
            match Reply::read(value) {
                Ok(reply) => self.replied(&ask, &reply, sent),
                Err(trouble) if trouble.is_unknown_script() => {
                    self.by_text = true;
                    again.push(ask);
                }
                // Once: what comes back as soon as it was removed, or cannot be removed, is asked again later.
                Err(trouble) if trouble.is_wrong_type() => match self.clearing(&ask) {
                    Some(Ask::Clear(key)) if cleared.contains(&key) => self.failed(ask, &trouble),
                    clear => {
                        again.extend(clear);
                        again.push(ask);
                    }
                },
                Err(trouble) => self.failed(ask, &trouble),
            }
        }
        // In front of what has come since, so that the order stays.
        again.into_iter().rev().for_each(|ask| self.outbox.push_front(ask));
    }

    fn clearing(&self, ask: &Ask) -> Option<Ask> {
        self.link.counters.corrupt_values.add(1);
        let key = match ask {
            Ask::Acquire(number) | Ask::Touch(number) => self.entries.get(number)?.key.clone(),
            Ask::Leave { key, .. } | Ask::Clear(key) => key.clone(),
        };
        Some(Ask::Clear(key))
    }

    /// Nothing is known of what was asked: ask again where there is time, and otherwise undo it.
    fn failed(&mut self, ask: Ask, trouble: &Trouble) {
        let now = Instant::now();
        match ask {
            Ask::Acquire(number) => match self.entries.get(&number) {
                Some(entry) if trouble.is_cut() && now < entry.next => self.retry(ask),
                Some(_) => self.end(number, trouble),
                None => {}
            },
            Ask::Touch(number) => self.plan(number, now + self.timing.answer_timeout),
            Ask::Leave { .. } => self.retry(ask),
            Ask::Clear(_) => {}
        }
    }

    fn replied(&mut self, ask: &Ask, reply: &Reply, sent: Instant) {
        match ask {
            Ask::Acquire(number) => self.acquired(*number, reply, sent),
            Ask::Touch(number) => self.touched(*number, reply, sent),
            Ask::Leave { .. } => self.link.counters.handovers.add((reply.what == 1).into()),
            Ask::Clear(_) => {}
        }
    }

    fn acquired(&mut self, number: u64, reply: &Reply, sent: Instant) {
        let Some(entry) = self.entries.get(&number) else { return };
        let (lasts, place) = (self.lease_of(entry, sent), usize::try_from(reply.first).unwrap_or(usize::MAX));
        match reply.what {
            1 => self.begin(number, reply.first, reply.second, (sent, lasts)),
            2 => self.queued(number, reply, sent),
            3 => self.turned_away(number, LockError::Timeout { position: place }),
            4 => self.turned_away(number, LockError::QueueFull { position: place }),
            _ => self.end(number, &Trouble::Nonsense),
        }
    }

    fn turned_away(&mut self, number: u64, error: LockError) {
        if let Some(Entry { stage: Stage::Asking { caller, .. }, .. }) = self.entries.remove(&number) {
            self.refuse(caller, error);
        }
    }

    fn queued(&mut self, number: u64, reply: &Reply, sent: Instant) {
        let Some(mut entry) = self.entries.remove(&number) else { return };
        let Stage::Asking { caller, granted } = entry.stage else { return };
        let (place, asked) =
            (usize::try_from(reply.first).unwrap_or(usize::MAX), Moment { sent, server_micros: reply.now });
        entry.stage = Stage::Queued { caller, place, asked };
        self.entries.insert(number, entry);
        match granted {
            Some(grant) => self.claim(number, grant, asked.at(grant.server_micros)),
            None => self.wait_for_owner(number, reply, sent),
        }
    }

    /// Looks again when the place has to be renewed, or the owner's lease is over and nobody may have noticed.
    /// Not all waiters at one instant.
    fn wait_for_owner(&mut self, number: u64, reply: &Reply, sent: Instant) {
        let owner_over = Instant::now() + Duration::from_millis(reply.second + 1 + number % 16);
        self.plan(number, owner_over.min(sent + self.timing.renew_after()));
    }

    fn touched(&mut self, number: u64, reply: &Reply, sent: Instant) {
        let Some(entry) = self.entries.get(&number) else { return };
        let lasts = self.lease_of(entry, sent);
        match (&entry.stage, reply.what) {
            (Stage::Held { token, lease, overdue_at, .. }, 1) if *token == reply.first => {
                let ends = (sent + lasts.saturating_sub(self.timing.margin())).min(*overdue_at);
                let lease: Arc<Lease> = lease.clone();
                lease.set_contended(entry.is_contended(reply.second, sent));
                if lease.renew(ends) {
                    self.plan(number, sent + self.timing.renew_after());
                } else {
                    self.end(number, &Trouble::Late);
                }
            }
            // A place in the queue, answered before the key was handed over: the bell was faster.
            (Stage::Held { token, .. }, 2) if reply.now <= *token => {}
            (Stage::Held { .. }, _) => self.end(number, &Trouble::Nonsense),
            (Stage::Queued { .. }, 1) => {
                self.link.counters.grants_polled.add(1);
                self.begin(number, reply.first, reply.second, (sent, lasts));
            }
            (Stage::Queued { .. }, 2) => self.wait_for_owner(number, reply, sent),
            (Stage::Queued { .. }, _) => self.queue_anew(number),
            (Stage::Asking { .. }, _) => {}
        }
    }

    /// The server knows nothing of this waiter any more, e.g. because it was emptied.
    fn queue_anew(&mut self, number: u64) {
        let Some(mut entry) = self.entries.remove(&number) else { return };
        if let Stage::Queued { caller, .. } = entry.stage {
            self.link.counters.requeued.add(1);
            let answer_by = Instant::now() + self.timing.answer_timeout * 2;
            entry.stage = Stage::Asking { caller, granted: None };
            self.entries.insert(number, entry);
            self.look_again(number, answer_by);
            self.outbox.push_back(Ask::Acquire(number));
        }
    }
}
