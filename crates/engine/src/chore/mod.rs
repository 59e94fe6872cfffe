//! Background chores: each completes one kind of work that time or a crash has left open.
//!
//! A chore runs on a timer and on wake-up, takes no input, is idempotent, works in bounded steps, changes
//! bookings through the same desk as all other commands, and has the same code path in normal operation and
//! after a crash. Any number of instances may run it concurrently: the second finds nothing left to do.

mod backoff;
mod event_cancellation;
mod key_expiry;
mod sweeper;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use domain::{RequestId, Timestamp};
use supervisor::Work;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{Engine, Error};

pub use sweeper::{SweepReport, Sweeper};

pub(crate) use event_cancellation::EventCancellation;
pub(crate) use key_expiry::KeyExpiry;

/// Work that is repeated.
#[async_trait]
pub(crate) trait Chore: Send {
    /// The name of the chore, in logs and in readiness.
    fn name(&self) -> &'static str;

    /// Does all the work that is due now, in bounded steps. Work that fails is left for the next run.
    async fn run_once(&mut self, engine: &Arc<Engine>) -> Result<(), Error>;
}

/// The health of a chore.
#[derive(Debug)]
pub struct Health {
    name: &'static str,
    last_success_micros: AtomicI64,
}

impl Health {
    pub(crate) fn new(name: &'static str, now: Timestamp) -> Self {
        Self { name, last_success_micros: AtomicI64::new(now.micros()) }
    }

    /// The name of the chore.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The time at which the chore last finished without a fault; its start if it never has.
    pub fn last_success(&self) -> Timestamp {
        let micros = self.last_success_micros.load(Ordering::Relaxed);
        Timestamp::from_micros(micros)
            .unwrap_or_else(|_| unreachable!("it was a timestamp when it was stored"))
    }
}

/// The times at which a chore runs.
pub(crate) struct ChoreSchedule {
    /// The interval.
    pub(crate) every: Duration,
    /// Starts a run at once.
    pub(crate) wake: Arc<Notify>,
    /// Ends the chore.
    pub(crate) stop: CancellationToken,
}

/// Runs a chore by its schedule.
pub(crate) struct Rounds {
    chore: Box<dyn Chore>,
    engine: Arc<Engine>,
    health: Arc<Health>,
    schedule: ChoreSchedule,
    /// Time until the next round.
    pause: Duration,
}

impl Rounds {
    /// The first round starts after a random part of the interval, so that instances that start together do
    /// not all run at the same time.
    pub(crate) fn new(
        chore: Box<dyn Chore>,
        engine: Arc<Engine>,
        health: Arc<Health>,
        schedule: ChoreSchedule,
    ) -> Self {
        let pause = schedule.every.mul_f64(f64::from(engine.ports.ids.random()[0]) / 256.0);
        Self { chore, engine, health, schedule, pause }
    }
}

impl Work for Rounds {
    /// The state that a chore keeps between rounds is only an optimization, so a panic leaves no work half
    /// done.
    async fn run(&mut self) {
        loop {
            tokio::select! {
                biased;
                () = self.schedule.stop.cancelled() => return,
                () = self.schedule.wake.notified() => (),
                () = tokio::time::sleep(self.pause) => (),
            }
            // A round that panics is repeated after the restart.
            self.pause = Duration::ZERO;
            // A stop does not wait for a long round; the next start continues the work.
            let outcome = tokio::select! {
                biased;
                () = self.schedule.stop.cancelled() => return,
                outcome = self.chore.run_once(&self.engine) => outcome,
            };
            self.pause = self.schedule.every;
            if let Err(error) = outcome {
                let chore = self.chore.name();
                tracing::error!(chore, %error, "a chore failed; it is retried in the next round");
            } else {
                self.health.last_success_micros.store(self.engine.now().micros(), Ordering::Relaxed);
            }
        }
    }
}

/// The request id of a chore's changes in the ledger: one for each run.
pub(crate) fn request(engine: &Engine, name: &str) -> RequestId {
    let run = engine.ports.ids.random().iter().fold(String::new(), |id, byte| format!("{id}{byte:02x}"));
    format!("{name}_{run}").parse().unwrap_or_else(|_| unreachable!("a word and hexadecimal digits"))
}
