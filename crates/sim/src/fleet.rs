//! The simulated processes, and the faults injected into them.

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

use crate::nats::{FaultyEventBus, SimulatedNats};
use crate::ports::{
    FaultyCommitListener, FaultyLimiter, FaultyLock, MachineClock, ProcessContext, SeededIds, SharedLimiter,
};
use crate::process::Process;
use crate::scenario::Fault;
use crate::spawn::spawn;
use crate::store::FaultyStore;
use crate::stream_checker::check_stream;
use crate::world::{CommonClock, World};

/// Largest clock offset if orders have idempotency keys, which are valid for a day.
const CLOCK_OFFSET_WITH_KEYS_MAX_MICROS: i64 = 10 * 3_600 * 1_000_000;

/// The longest jump of the clock, in days: beyond every hold, window and cut-off.
const CLOCK_JUMP_MAX_DAYS: i64 = 40;

/// All processes, and the state that they share.
pub(crate) struct Fleet {
    pub(crate) shared: Arc<Sqlite>,
    lock: Arc<LocalLock>,
    limiter: Arc<SharedLimiter>,
    pub(crate) nats: Arc<SimulatedNats>,
    instances: Mutex<Vec<Option<Instance>>>,
}

#[derive(Clone)]
struct Instance {
    engine: Arc<Engine>,
    context: ProcessContext,
    relay: Option<Arc<Relay>>,
    /// Stops its relay, which continues until everything else has stopped.
    drained: CancellationToken,
}

impl Fleet {
    pub(crate) fn new(world: &Arc<World>, shared: Arc<Sqlite>) -> Arc<Self> {
        let fleet = Self {
            shared,
            lock: Arc::new(LocalLock::new(Arc::new(CommonClock(world.clone())))),
            limiter: Arc::new(SharedLimiter::new(world.clone())),
            nats: Arc::new(SimulatedNats::new(world.clone())),
            instances: Mutex::default(),
        };
        for number in 0..usize::try_from(world.scenario.instances).unwrap_or(1) {
            let instance = fleet.start(world, number);
            fleet.instances().push(Some(instance));
        }
        Arc::new(fleet)
    }

    fn instances(&self) -> MutexGuard<'_, Vec<Option<Instance>>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, world: &Arc<World>, number: usize) -> Instance {
        world.log(format_args!("instance {number} starts"));
        let process = Process::default();
        let skew = Arc::new(AtomicI64::new(0));
        let context = ProcessContext { world: world.clone(), process, skew, number };
        let lock = Arc::new(FaultyLock { context: context.clone(), shared: self.lock.clone() });
        let relay = world.scenario.relay.then(Arc::<Relay>::default);
        let ports = Ports {
            store: Arc::new(FaultyStore { context: context.clone(), shared: self.shared.clone() }),
            lock: lock.clone(),
            lease: world.scenario.leases.then_some(lock as Arc<dyn coordination::Lock>),
            limiter: Arc::new(FaultyLimiter { context: context.clone(), shared: self.limiter.clone() }),
            clock: Arc::new(MachineClock(context.clone())),
            ids: Arc::new(SeededIds(world.clone())),
            commit_listener: Arc::new(FaultyCommitListener {
                context: context.clone(),
                relay: relay.clone(),
            }),
        };
        let drained = CancellationToken::new();
        if let Some(relay) = relay.clone() {
            let (nats, context) = (self.nats.clone(), context.clone());
            spawn(run_relay(relay, ports.clone(), FaultyEventBus { context, nats }, drained.clone()));
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
        Instance { engine, context, relay, drained }
    }

    /// Draws a running instance; waits until there is one.
    pub(crate) async fn any_instance(&self, world: &World) -> (Arc<Engine>, Process) {
        loop {
            let live: Vec<Instance> = self.live_instances();
            if let Some(instance) = world.choose(&live) {
                return (instance.engine, instance.context.process);
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    fn live_instances(&self) -> Vec<Instance> {
        let instances = self.instances();
        instances.iter().flatten().filter(|instance| !instance.context.process.is_killed()).cloned().collect()
    }

    /// Returns the status of every relay.
    pub(crate) fn relays(&self) -> Vec<RelayStatus> {
        self.live_instances().iter().filter_map(|instance| Some(instance.relay.as_ref()?.status())).collect()
    }

    /// Acquires the lock of a booking, as another process could.
    pub(crate) async fn lock_booking(&self, booking: BookingId) -> Option<LockGuard> {
        let key = Key::new("booking", &booking.to_string()).ok()?;
        self.lock.acquire(&key, LockOptions::default()).await.ok()
    }

    /// Restarts every process that is down.
    fn restart(&self, world: &Arc<World>) {
        let numbers = 0..self.instances().len();
        for number in numbers {
            let down =
                self.instances()[number].as_ref().is_none_or(|instance| instance.context.process.is_killed());
            if down {
                let started = self.start(world, number);
                self.instances()[number] = Some(started);
            }
        }
    }

    /// Injects the faults that are not part of a call, until faults are disabled.
    pub(crate) async fn inject_faults(self: Arc<Self>, world: Arc<World>) {
        while world.faults_enabled() {
            sleep(world.random_duration(Duration::from_secs(20)) + Duration::from_millis(200)).await;
            if !world.faults_enabled() {
                return;
            }
            self.restart(&world);
            let Some(victim) = world.choose(&self.live_instances()) else { continue };
            if world.should_inject(Fault::Crash) {
                world.log(format_args!("instance {} is killed", victim.context.number));
                victim.context.process.kill();
                continue;
            }
            if world.should_inject(Fault::Pause) {
                victim.context.process.pause(world.scenario.pause);
            }
            if world.should_inject(Fault::Drain) {
                self.drain(&world, victim.clone());
            }
            if world.should_inject(Fault::ClockSkew) {
                let seconds = i64::try_from(world.random_below(241)).unwrap_or(0) - 120;
                victim.context.skew.store(seconds * 1_000_000, Ordering::Relaxed);
            }
            Self::jump_clock(&world);
            self.poison(&world).await;
            self.inject_stream_faults(&world).await;
        }
    }

    /// Shuts a process down gracefully, as a deployment does.
    fn drain(&self, world: &Arc<World>, victim: Instance) {
        self.instances()[victim.context.number] = None;
        let world = world.clone();
        let work = async move {
            victim.engine.drain().await;
            victim.drained.cancel();
            world.log(format_args!("instance {} is drained", victim.context.number));
        };
        spawn(work);
    }

    fn jump_clock(world: &World) {
        let sizes = [1, 60, 3_600, CLOCK_JUMP_MAX_DAYS * 86_400];
        let Some(seconds) = world.choose(&sizes) else { return };
        let before = world.clock_offset();
        let jump = if world.should_inject(Fault::ClockJumpForward) {
            seconds * 1_000_000
        } else if world.should_inject(Fault::ClockJumpBack) {
            -seconds * 1_000_000
        } else {
            // In half of the cases, so that decisions under a correct clock meet a ledger that was written
            // under a wrong one.
            if before != 0 && (world.elapsed() / 1_000).is_multiple_of(2) {
                world.correct_clock();
            }
            return;
        };
        if world.scenario.keys && (before + jump).abs() > CLOCK_OFFSET_WITH_KEYS_MAX_MICROS {
            return;
        }
        world.jump_clock(jump);
        if seconds == CLOCK_JUMP_MAX_DAYS * 86_400 {
            world.record_coverage("clock: jumps by weeks");
        }
        world.log(format_args!("the clock jumps by {jump} us"));
    }

    /// Damages rows directly in the database, so that they cannot be read or cannot be overwritten.
    async fn poison(&self, world: &World) {
        if world.should_inject(Fault::PoisonBooking) {
            let page = self.shared.bookings(store::BookingList::All { after: None }, None, 10).await;
            let bookings = page.map(|page| page.rows).unwrap_or_default();
            if let Some(booking) = world.choose(&bookings)
                && world.damaged_rows(|damaged| damaged.bookings.insert(booking.id))
            {
                world.damaged_rows(|damaged| damaged.bookings_ever.insert(booking.id));
                let id = hex(booking.id.bytes());
                let sql = format!("UPDATE bookings SET items = 'x' || items WHERE id = X'{id}'");
                self.execute_directly(world, &sql);
            }
        }
        if world.should_inject(Fault::PoisonEvent) {
            let events = self.shared.events(None, 10).await.map(|page| page.rows).unwrap_or_default();
            if let Some(event) = world.choose(&events)
                && world.damaged_rows(|damaged| damaged.events.insert(event.id))
            {
                world.damaged_rows(|damaged| damaged.events_ever.insert(event.id));
                let id = hex(event.id.bytes());
                self.execute_directly(
                    world,
                    &format!(
                        "INSERT INTO ledger SELECT event_id, seq + 1, type, booking_id, refund_id, lines,
                            quantity, from_status, to_status, available_after, previous_seq, actor, 'poison',
                            at, NULL
                         FROM ledger WHERE event_id = X'{id}' ORDER BY seq DESC LIMIT 1"
                    ),
                );
            }
        }
        if world.chance_percent(20) {
            self.repair(world);
        }
    }

    /// Injects faults into the stream itself. Messages that are about to be lost are checked before.
    async fn inject_stream_faults(&self, world: &World) {
        if world.should_inject(Fault::StreamUnavailable) {
            self.nats.disconnect_for(world.random_duration(Duration::from_mins(2)));
        }
        let deleted = world.should_inject(Fault::StreamDeleted);
        let truncated = world.should_inject(Fault::StreamTruncated);
        if deleted || truncated {
            for violation in check_stream(&self.shared, &self.nats, false).await {
                world.report_violation(format!("stream: {violation}"));
            }
        }
        if deleted {
            self.nats.delete();
        }
        if truncated {
            self.nats.truncate(usize::try_from(1 + world.random_below(3)).unwrap_or(1));
        }
    }

    fn execute_directly(&self, world: &World, sql: &str) {
        if let Err(error) = self.shared.execute_directly(sql) {
            world.report_violation(format!("the simulator failed: {error}"));
        }
    }

    /// Repairs all damaged rows.
    fn repair(&self, world: &World) {
        let (bookings, events): (Vec<BookingId>, Vec<EventId>) = world.damaged_rows(|damaged| {
            let bookings = std::mem::take(&mut damaged.bookings);
            let events = std::mem::take(&mut damaged.events);
            (bookings.into_iter().collect(), events.into_iter().collect())
        });
        for id in bookings {
            let id = hex(id.bytes());
            let sql = format!("UPDATE bookings SET items = substr(items, 2) WHERE id = X'{id}'");
            self.execute_directly(world, &sql);
        }
        for id in events {
            let id = hex(id.bytes());
            self.execute_directly(
                world,
                &format!("DELETE FROM ledger WHERE event_id = X'{id}' AND request_id = 'poison'"),
            );
        }
    }

    /// Ends all faults: every process runs, every clock is correct, every row can be read.
    pub(crate) fn heal(&self, world: &Arc<World>) {
        world.log(format_args!("faults end"));
        world.disable_faults();
        self.nats.reconnect();
        self.repair(world);
        world.correct_clock();
        for instance in self.instances().iter().flatten() {
            instance.context.process.resume();
            instance.context.skew.store(0, Ordering::Relaxed);
        }
        self.restart(world);
    }
}

/// Runs the relay of one process until it is drained.
async fn run_relay(relay: Arc<Relay>, ports: Ports, event_bus: FaultyEventBus, drained: CancellationToken) {
    let Ports { store, lock, clock, ids, .. } = ports;
    let dependencies = RelayDependencies { store, lock, clock, ids, event_bus: Arc::new(event_bus) };
    tokio::select! { biased; () = drained.cancelled() => (), never = relay.run(&dependencies) => never }
}

fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}
