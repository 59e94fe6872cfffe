//! An engine with a controlled clock: time advances only while a test waits, by tokio's paused clock, and the
//! wall clock advances with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use coordination::Rule;
use coordination::local::{LocalLimiter, LocalLock};
use domain::{
    Actor, Answer, Booking, Clock, Event, Ids, Money, NewEvent, NewTicketType, Order, TicketSelection,
    Timestamp, UserId,
};
use engine::{Caller, CommandOutput, Engine, NoopListener, Policy, Ports, RateLimitedResult, Reader};
use store::{Sqlite, SqliteOptions};
use tokio::time::Instant;

/// An instant in January 2027, in microseconds since 1970.
const START: i64 = 1_800_000_000_000_000;

/// The time that has passed on tokio's clock, plus the offset by which it was shifted.
pub(crate) struct PausedClock {
    start: Instant,
    offset_micros: AtomicI64,
}

impl PausedClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), offset_micros: AtomicI64::new(0) })
    }

    /// Shifts the clock forward by this number of seconds, or back if negative.
    pub(crate) fn shift(&self, seconds: i64) {
        self.offset_micros.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
    }
}

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        let passed = i64::try_from(self.start.elapsed().as_micros()).expect("elapsed time fits i64");
        let micros = START + passed + self.offset_micros.load(Ordering::Relaxed);
        Timestamp::from_micros(micros).expect("an instant")
    }
}

impl coordination::Clock for PausedClock {
    fn unix_micros(&self) -> u64 {
        u64::try_from(Clock::now(self).micros()).expect("after 1970")
    }
}

/// Deterministic ids with a fixed first byte, which determines the phase of the chores' intervals.
struct PhasedIds(u8, AtomicU64);

impl Ids for PhasedIds {
    fn random(&self) -> [u8; 10] {
        let mut bytes = [self.0; 10];
        bytes[2..].copy_from_slice(&self.1.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        bytes
    }
}

/// An engine and its ports. `phase` determines the start of its chores: 0 immediately, 255 after almost an
/// interval.
pub(crate) fn start(phase: u8) -> (Arc<Engine>, Ports) {
    start_with(phase, PausedClock::new())
}

/// As [`start`], with a clock that the test can set.
pub(crate) fn start_with(phase: u8, clock: Arc<PausedClock>) -> (Arc<Engine>, Ports) {
    let options = SqliteOptions { clock: clock.clone(), inline: true };
    let ports = Ports {
        store: Arc::new(Sqlite::in_memory(&options).expect("a store")),
        lock: Arc::new(LocalLock::new(clock.clone())),
        lease: None,
        limiter: Arc::new(LocalLimiter::new(clock.clone())),
        clock,
        ids: Arc::new(PhasedIds(phase, AtomicU64::new(0))),
        commit_listener: Arc::new(NoopListener),
    };
    let policy = Policy {
        hold_seconds: 600,
        cancel_cutoff_seconds: 86_400,
        book: Rule::parse("book", "5/10s").expect("a rule"),
        cancel: Rule::parse("cancel", "3/30s").expect("a rule"),
    };
    (Engine::start(ports.clone(), policy), ports)
}

/// The user of that name.
pub(crate) fn user(name: &str) -> UserId {
    name.parse().expect("a user")
}

/// A service, as the caller of reads.
pub(crate) fn reader() -> Reader {
    Reader::Service(user("gateway"))
}

/// A caller with role `user`.
pub(crate) fn as_user(name: &str) -> Caller {
    Caller {
        actor: Actor::User(user(name)),
        request: "req-test".parse().expect("a request"),
        trace: None,
        deadline: None,
    }
}

/// A new event of ten tickets that starts in this number of seconds.
pub(crate) fn new_event(engine: &Arc<Engine>, seconds: u32) -> NewEvent {
    let policy = engine.policy();
    let price = Money::new(4_500, "EUR".parse().expect("a currency")).expect("an amount");
    let name = || "Night of the Open Doors".parse().expect("a name");
    NewEvent {
        id: engine.event_id(),
        name: name(),
        venue: name(),
        starts_at: engine.now().plus_seconds(seconds),
        time_zone: None,
        capacity: 10,
        ticket_types: vec![NewTicketType {
            id: engine.ticket_type_id(),
            name: name(),
            price,
            capacity: None,
        }],
        single_price: true,
        sales_start_at: None,
        sales_end_at: None,
        hold_seconds: policy.hold_seconds,
        cancel_cutoff_seconds: policy.cancel_cutoff_seconds,
        max_tickets_per_booking: 10,
        max_tickets_per_user: None,
    }
}

/// An event of ten tickets that starts in this number of seconds, on sale.
pub(crate) async fn event_in(engine: &Arc<Engine>, seconds: u32) -> Event {
    let new = new_event(engine, seconds);
    let admin = Caller { actor: Actor::Admin(user("boss")), ..as_user("boss") };
    match engine.create_event(admin, new, None).await {
        Ok(CommandOutput::Fresh(Answer::Event(event))) => *event,
        other => panic!("no event: {other:?}"),
    }
}

/// Books tickets as their owner.
pub(crate) async fn book(engine: &Arc<Engine>, name: &str, event: &Event, tickets: u32) -> Booking {
    let order = Order::new(event.id, engine.booking_id(), user(name), TicketSelection::Quantity(tickets));
    let attempt: RateLimitedResult = engine.book(as_user(name), order, None).await;
    match attempt.outcome {
        Ok(CommandOutput::Fresh(Answer::Booking(booking))) => Arc::unwrap_or_clone(booking),
        other => panic!("no booking: {other:?}"),
    }
}
