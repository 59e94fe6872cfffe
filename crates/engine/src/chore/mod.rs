//! Background chores: each reconciles one thing that time or a crash has left undone.
//!
//! A chore is woken by a timer *and* by a nudge, takes no input, is idempotent, does its work in bounded
//! steps, whatever concerns bookings through the same desk as everybody else, and has one path for good days and for the day after a
//! crash. Any number of instances may run it at once: whoever comes second finds nothing left to do.

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

/// Something to be done again and again.
#[async_trait]
pub(crate) trait Chore: Send {
    /// What it is called, in logs and in readiness.
    fn name(&self) -> &'static str;

    /// Does all there is to do now, in bounded steps. What fails is left for the next time.
    async fn run_once(&mut self, engine: &Arc<Engine>) -> Result<(), Error>;
}

/// How a chore is getting on.
#[derive(Debug)]
pub struct Health {
    name: &'static str,
    last_success_micros: AtomicI64,
}

impl Health {
    pub(crate) fn new(name: &'static str, now: Timestamp) -> Self {
        Self { name, last_success_micros: AtomicI64::new(now.micros()) }
    }

    /// What the chore is called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// When it last finished without a fault; when it was started, if it never has.
    pub fn last_success(&self) -> Timestamp {
        let micros = self.last_success_micros.load(Ordering::Relaxed);
        Timestamp::from_micros(micros)
            .unwrap_or_else(|_| unreachable!("it was a timestamp when it was stored"))
    }
}

/// The rounds of a chore until `stop`: every `every`, and when nudged.
pub(crate) struct Rounds {
    chore: Box<dyn Chore>,
    engine: Arc<Engine>,
    health: Arc<Health>,
    every: Duration,
    nudge: Arc<Notify>,
    stop: CancellationToken,
    /// Until the next round.
    pause: Duration,
}

impl Rounds {
    /// The first round comes after a random part of the interval, so that instances started together do not all
    /// sweep at once.
    pub(crate) fn new(
        chore: Box<dyn Chore>,
        engine: Arc<Engine>,
        health: Arc<Health>,
        (every, nudge, stop): (Duration, Arc<Notify>, CancellationToken),
    ) -> Self {
        let pause = every.mul_f64(f64::from(engine.ports.ids.random()[0]) / 256.0);
        Self { chore, engine, health, every, nudge, stop, pause }
    }
}

impl Work for Rounds {
    /// What a chore remembers from one round to the next are hints, so a panic leaves nothing half done behind.
    async fn run(&mut self) {
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.nudge.notified() => (),
                () = tokio::time::sleep(self.pause) => (),
            }
            // A round that panics is repeated after the restart.
            self.pause = Duration::ZERO;
            // A stop does not wait for a long round; the next start goes on where it was.
            let outcome = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                outcome = self.chore.run_once(&self.engine) => outcome,
            };
            self.pause = self.every;
            if let Err(error) = outcome {
                let chore = self.chore.name();
                tracing::error!(chore, %error, "a chore failed; it will be tried again");
            } else {
                self.health.last_success_micros.store(self.engine.now().micros(), Ordering::Relaxed);
            }
        }
    }
}

/// The name under which a chore's changes stand in the ledger: one for each run.
pub(crate) fn request(engine: &Engine, name: &str) -> RequestId {
    let run = engine.ports.ids.random().iter().fold(String::new(), |id, byte| format!("{id}{byte:02x}"));
    format!("{name}_{run}").parse().unwrap_or_else(|_| unreachable!("a word and hexadecimal digits"))
}
