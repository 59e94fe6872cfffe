//! Background chores: each completes one kind of work that time or a crash has left open.
//!
//! A chore runs on a timer and on wake-up, takes no input, is idempotent, works in bounded steps, changes
//! bookings through the same desk as all other commands, and has the same code path in normal operation and
//! after a crash. Any number of instances may run it concurrently: the second finds nothing left to do.

mod backoff;
mod event_cancellation;
mod key_expiry;
mod sweeper;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use domain::RequestId;
use supervisor::Work;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::event_cancellation::EventCancellation;
use self::key_expiry::KeyExpiry;
use crate::health::Health;
use crate::limit::KEY_EXPIRY_EVERY;
use crate::watch::WatchPoller;
use crate::{Engine, Error, clock};

pub use self::sweeper::{SweepReport, Sweeper};

/// Work that is repeated.
#[async_trait]
trait Chore: Send {
    /// The name of the chore, in logs and in readiness.
    fn name(&self) -> &'static str;

    /// Does all the work that is due now, in bounded steps. Work that fails is left for the next run.
    async fn run_once(&mut self, engine: &Arc<Engine>) -> Result<(), Error>;
}

impl Engine {
    /// Starts the background chores: the clean-up of overdue bookings, at the interval `sweep_every`, and the
    /// others. They end with [`Engine::drain`].
    pub fn start_chores(self: &Arc<Self>, sweep_every: Duration) {
        self.start_chore(Box::<Sweeper>::default(), sweep_every, Arc::new(Notify::new()));
        self.start_chore(Box::<EventCancellation>::default(), sweep_every, self.chores.cancelled.clone());
        self.start_chore(Box::new(KeyExpiry), KEY_EXPIRY_EVERY, Arc::new(Notify::new()));
        let stop = self.chores.stop.clone();
        let watcher = WatchPoller::new(self.watched.clone(), self.ports.store.clone(), stop.clone());
        self.start_task("watcher", watcher);
        let clock = self.ports.clock.clone();
        let jumps = self.chores.clock_jumps.clone();
        self.start_task("clock-monitor", move || clock::watch(clock.clone(), jumps.clone(), stop.clone()));
    }

    fn start_chore(self: &Arc<Self>, chore: Box<dyn Chore>, every: Duration, wake: Arc<Notify>) {
        let name = chore.name();
        let health = Arc::new(Health::new(name, self.now()));
        self.chores.health.lock().unwrap_or_else(PoisonError::into_inner).push(health.clone());
        let schedule = ChoreSchedule { every, wake, stop: self.chores.stop.clone() };
        self.start_task(name, Rounds::new(chore, self.clone(), health, schedule));
    }
}

/// The times at which a chore runs.
struct ChoreSchedule {
    /// The interval.
    every: Duration,
    /// Starts a run at once.
    wake: Arc<Notify>,
    /// Ends the chore.
    stop: CancellationToken,
}

/// Runs a chore by its schedule.
struct Rounds {
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
    fn new(chore: Box<dyn Chore>, engine: Arc<Engine>, health: Arc<Health>, schedule: ChoreSchedule) -> Self {
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
                self.health.record_success(self.engine.now());
            }
        }
    }
}

/// The request id of a chore's changes in the ledger: one for each run.
fn request(engine: &Engine, name: &str) -> RequestId {
    let run = engine.ports.ids.random().iter().fold(String::new(), |id, byte| format!("{id}{byte:02x}"));
    format!("{name}_{run}").parse().unwrap_or_else(|_| unreachable!("a word and hexadecimal digits"))
}
