//! The processes, and what befalls them.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coordination::local::LocalLock;
use coordination::{Key, Lock as _, LockGuard, LockOptions, Rule};
use domain::{BookingId, EventId};
use engine::relay::{Relay, RelayDependencies, RelayStatus};
use engine::{Engine, Policy, Ports};
use store::{Sqlite, Store as _};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::checker;
use crate::nats::{FaultyEventBus, SimulatedNats};
use crate::ports::{
    FaultyCommitListener, FaultyLimiter, FaultyLock, MachineClock, ProcessContext, SeededIds, SharedLimiter,
};
use crate::process::Process;
use crate::scenario::Fault;
use crate::store::FaultyStore;
use crate::world::{CommonClock, World};

/// Farthest that the clock jumps in all where orders come under keys, which live for a day.
const JUMPS_WITHIN_A_DAY_MICROS: i64 = 10 * 3_600 * 1_000_000;

/// The longest jump of the clock, in days: beyond every hold, window and cut-off.
const DAYS_JUMPED: i64 = 40;

/// All processes, and what they share.
pub(crate) struct Fleet {
    pub(crate) shared: Arc<Sqlite>,
    lock: Arc<LocalLock>,
    limiter: Arc<SharedLimiter>,
    pub(crate) nats: Arc<SimulatedNats>,
    running: Mutex<Vec<Option<Instance>>>,
}

#[derive(Clone)]
struct Instance {
    engine: Arc<Engine>,
    place: ProcessContext,
    relay: Option<Arc<Relay>>,
    /// Ends its relay, which goes on until all else has ended.
    drained: CancellationToken,
}

impl Fleet {
    pub(crate) fn new(world: &Arc<World>, shared: Arc<Sqlite>) -> Arc<Self> {
        let fleet = Self {
            shared,
            lock: Arc::new(LocalLock::new(Arc::new(CommonClock(world.clone())))),
            limiter: Arc::new(SharedLimiter::new(world.clone())),
            nats: Arc::new(SimulatedNats::new(world.clone())),
            running: Mutex::default(),
        };
        for number in 0..usize::try_from(world.scenario.instances).unwrap_or(1) {
            let running = fleet.start(world, number);
            fleet.running().push(Some(running));
        }
        Arc::new(fleet)
    }

    fn running(&self) -> MutexGuard<'_, Vec<Option<Instance>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, world: &Arc<World>, number: usize) -> Instance {
        world.note(format_args!("instance {number} starts"));
        let (life, skew) = (Process::default(), Arc::new(AtomicI64::new(0)));
        let place = ProcessContext { world: world.clone(), life, skew, number };
        let lock = Arc::new(FaultyLock { place: place.clone(), shared: self.lock.clone() });
        let relay = world.scenario.relay.then(Arc::<Relay>::default);
        let ports = Ports {
            store: Arc::new(FaultyStore { place: place.clone(), shared: self.shared.clone() }),
            lock: lock.clone(),
            lease: world.scenario.leases.then_some(lock as Arc<dyn coordination::Lock>),
            limiter: Arc::new(FaultyLimiter { place: place.clone(), shared: self.limiter.clone() }),
            clock: Arc::new(MachineClock(place.clone())),
            ids: Arc::new(SeededIds(world.clone())),
            commit_listener: Arc::new(FaultyCommitListener { place: place.clone(), relay: relay.clone() }),
        };
        let drained = CancellationToken::new();
        if let Some(relay) = relay.clone() {
            let (nats, place) = (self.nats.clone(), place.clone());
            spawn(run_relay(relay, ports.clone(), FaultyEventBus { place, nats }, drained.clone()));
        }
        let rule = |name, text| Rule::parse(name, text).unwrap_or_else(|_| unreachable!("{text} is a rule"));
        let policy = Policy {
            hold_seconds: 60,
            cancel_cutoff_seconds: 60,
            book: rule("book", "5/10s"),
            cancel: rule("cancel", "3/30s"),
        };
        let engine = Engine::start(ports, policy);
        engine.start_chores(world.scenario.sweep_every);
        Instance { engine, place, relay, drained }
    }

    /// Some process that is up, as soon as there is one.
    pub(crate) async fn any(&self, world: &World) -> (Arc<Engine>, Process) {
        loop {
            let up: Vec<Instance> = self.up();
            if let Some(running) = world.one_of(&up) {
                return (running.engine, running.place.life);
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    fn up(&self) -> Vec<Instance> {
        let running = self.running();
        running.iter().flatten().filter(|running| !running.place.life.is_dead()).cloned().collect()
    }

    /// How the relays are getting on.
    pub(crate) fn relays(&self) -> Vec<RelayStatus> {
        self.up().iter().filter_map(|running| Some(running.relay.as_ref()?.status())).collect()
    }

    /// Takes the lock of a booking, as some other program might.
    pub(crate) async fn hold(&self, booking: BookingId) -> Option<LockGuard> {
        let key = Key::new("booking", &booking.to_string()).ok()?;
        self.lock.acquire(&key, LockOptions::default()).await.ok()
    }

    /// Starts every process anew that is down.
    fn restart(&self, world: &Arc<World>) {
        let numbers = 0..self.running().len();
        for number in numbers {
            let down = self.running()[number].as_ref().is_none_or(|running| running.place.life.is_dead());
            if down {
                let started = self.start(world, number);
                self.running()[number] = Some(started);
            }
        }
    }

    /// What goes wrong besides calls, until the world is healed.
    pub(crate) async fn trouble(self: Arc<Self>, world: Arc<World>) {
        while world.faults() {
            sleep(world.moment(Duration::from_secs(20)) + Duration::from_millis(200)).await;
            if !world.faults() {
                return;
            }
            self.restart(&world);
            let Some(victim) = world.one_of(&self.up()) else { continue };
            if world.should_inject(Fault::Crash) {
                world.note(format_args!("instance {} is killed", victim.place.number));
                victim.place.life.kill();
                continue;
            }
            if world.should_inject(Fault::Pause) {
                victim.place.life.pause(world.scenario.pause);
            }
            if world.should_inject(Fault::Drain) {
                self.drain(&world, victim.clone());
            }
            if world.should_inject(Fault::Skew) {
                let seconds = i64::try_from(world.below(241)).unwrap_or(0) - 120;
                victim.place.skew.store(seconds * 1_000_000, Ordering::Relaxed);
            }
            Self::jump(&world);
            self.poison(&world).await;
            self.inject_stream_faults(&world).await;
        }
    }

    /// Takes a process out of service, as a deployment does.
    fn drain(&self, world: &Arc<World>, victim: Instance) {
        self.running()[victim.place.number] = None;
        let world = world.clone();
        let work = async move {
            victim.engine.drain().await;
            victim.drained.cancel();
            world.note(format_args!("instance {} is drained", victim.place.number));
        };
        spawn(work);
    }

    fn jump(world: &World) {
        let sizes = [1, 60, 3_600, DAYS_JUMPED * 86_400];
        let Some(seconds) = world.one_of(&sizes) else { return };
        let before = world.jumped();
        let jump = if world.should_inject(Fault::JumpForward) {
            seconds * 1_000_000
        } else if world.should_inject(Fault::JumpBack) {
            -seconds * 1_000_000
        } else {
            // As often as not: decisions under a right clock must meet a ledger that a wrong one wrote.
            if before != 0 && (world.elapsed() / 1_000).is_multiple_of(2) {
                world.set_clock_right();
            }
            return;
        };
        if world.scenario.keys && (before + jump).abs() > JUMPS_WITHIN_A_DAY_MICROS {
            return;
        }
        world.jump(jump);
        if seconds == DAYS_JUMPED * 86_400 {
            world.saw("clock: jumps by weeks");
        }
        world.note(format_args!("the clock jumps by {jump} us"));
    }

    /// Damages rows behind the store's back: such that they cannot be read, or not be written over.
    async fn poison(&self, world: &World) {
        if world.should_inject(Fault::PoisonBooking) {
            let due = self.shared.bookings(store::BookingList::All { after: None }, None, 10).await;
            let live = due.map(|page| page.rows).unwrap_or_default();
            if let Some(booking) = world.one_of(&live)
                && world.poisoned(|poisoned| poisoned.bookings.insert(booking.id))
            {
                world.poisoned(|poisoned| poisoned.bookings_ever.insert(booking.id));
                let id = hex(booking.id.bytes());
                self.tamper(world, &format!("UPDATE bookings SET items = 'x' || items WHERE id = X'{id}'"));
            }
        }
        if world.should_inject(Fault::PoisonEvent) {
            let events = self.shared.events(None, 10).await.map(|page| page.rows).unwrap_or_default();
            if let Some(event) = world.one_of(&events)
                && world.poisoned(|poisoned| poisoned.events.insert(event.id))
            {
                world.poisoned(|poisoned| poisoned.events_ever.insert(event.id));
                let id = hex(event.id.bytes());
                self.tamper(world, &format!(
                    "INSERT INTO ledger SELECT event_id, seq + 1, type, booking_id, refund_id, lines, quantity,
                        from_status, to_status, available_after, previous_seq, actor, 'poison', at, NULL
                     FROM ledger WHERE event_id = X'{id}' ORDER BY seq DESC LIMIT 1"
                ));
            }
        }
        if world.percent(20) {
            self.repair(world);
        }
    }

    /// What befalls the stream itself. What is about to be lost of it is judged before.
    async fn inject_stream_faults(&self, world: &World) {
        if world.should_inject(Fault::StreamAway) {
            self.nats.go_away(world.moment(Duration::from_mins(2)));
        }
        let (deleted, cut) =
            (world.should_inject(Fault::StreamDeleted), world.should_inject(Fault::StreamCut));
        if deleted || cut {
            for what in checker::stream(self, false).await {
                world.wrong(format!("stream: {what}"));
            }
        }
        if deleted {
            self.nats.delete();
        }
        if cut {
            self.nats.cut(usize::try_from(1 + world.below(3)).unwrap_or(1));
        }
    }

    fn tamper(&self, world: &World, sql: &str) {
        if let Err(error) = self.shared.tamper(sql) {
            world.wrong(format!("the simulation is at fault: {error}"));
        }
    }

    /// Undoes all damage.
    fn repair(&self, world: &World) {
        let (bookings, events): (Vec<BookingId>, Vec<EventId>) = world.poisoned(|poisoned| {
            let (bookings, events) =
                (std::mem::take(&mut poisoned.bookings), std::mem::take(&mut poisoned.events));
            (bookings.into_iter().collect(), events.into_iter().collect())
        });
        for id in bookings {
            let id = hex(id.bytes());
            self.tamper(world, &format!("UPDATE bookings SET items = substr(items, 2) WHERE id = X'{id}'"));
        }
        for id in events {
            let id = hex(id.bytes());
            self.tamper(
                world,
                &format!("DELETE FROM ledger WHERE event_id = X'{id}' AND request_id = 'poison'"),
            );
        }
    }

    /// Faults end: everything runs, every clock is right, every row can be read.
    pub(crate) fn heal(&self, world: &Arc<World>) {
        world.note(format_args!("the world is healed"));
        world.heal();
        self.nats.come_back();
        self.repair(world);
        world.set_clock_right();
        for running in self.running().iter().flatten() {
            running.place.life.resume();
            running.place.skew.store(0, Ordering::Relaxed);
        }
        self.restart(world);
    }
}

/// The relay of one process.
async fn run_relay(relay: Arc<Relay>, ports: Ports, bell: FaultyEventBus, drained: CancellationToken) {
    let Ports { store, lock, clock, ids, .. } = ports;
    let ground = RelayDependencies { store, lock, clock, ids, event_bus: Arc::new(bell) };
    tokio::select! { biased; () = drained.cancelled() => (), never = relay.run(&ground) => never }
}

fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

/// Runs beside everything else until the simulation ends.
#[expect(clippy::disallowed_methods, reason = "it ends with the runtime of its simulation")]
pub(crate) fn spawn<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(work)
}
