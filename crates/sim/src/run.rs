//! One seed, from an empty store to the verdict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::{Event, EventPatch, EventStatus, Money, NewEvent, NewTicketType, TicketSelection as Wish};
use engine::{Caller, OrderRequest};
use store::{BookingList, Sqlite, SqliteOptions, Store as _};
use testkit::history::{CallResult, Operation, Outcome};
use tokio::time::{sleep, timeout};

use crate::checker;
use crate::fleet::{Fleet, spawn};
use crate::scenario::Scenario;
use crate::workload::Workload;
use crate::world::{CommonClock, World};

/// Longest time after all is well until everything is told: a message that is still on its way, the lease of a relay
/// that is dead, and a few looks.
const PUBLISHED_WITHIN: Duration = Duration::from_mins(1);
/// Longest time until everything is told again on a stream that was lost: what is promised.
const REPUBLISHED_WITHIN: Duration = Duration::from_secs(30);

/// What became of one seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// A digest of everything that happened, in order. The same seed gives the same one.
    pub hash: u64,
    /// Every broken promise, in words.
    pub wrong: Vec<String>,
    /// What was met, and how often.
    pub seen: BTreeMap<String, u64>,
    /// Everything that happened, a line each, where it was asked for.
    pub trace: Vec<String>,
    /// Calls of clients.
    pub calls: u64,
    /// Simulated time in milliseconds.
    pub simulated_millis: u64,
}

/// Simulates one seed. Even seeds have faults until the end; odd ones are healed, and then must make progress.
/// `record` keeps the trace.
///
/// # Panics
///
/// Where the machine gives no runtime or no memory.
pub fn run(seed: u64, record: bool) -> Report {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build();
    let runtime = runtime.unwrap_or_else(|error| panic!("a runtime without threads: {error}"));
    runtime.block_on(simulate(seed, record))
}

async fn simulate(seed: u64, record: bool) -> Report {
    let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed);
    let scenario = Scenario::draw(seed, &mut rng);
    let world = World::new(scenario, rng, record);
    let options = SqliteOptions { clock: Arc::new(CommonClock(world.clone())), inline: true };
    let store = Sqlite::in_memory(&options).unwrap_or_else(|error| panic!("a store in memory: {error}"));
    let fleet = Fleet::new(&world, Arc::new(store));
    let workload = Workload::new(world.clone(), fleet.clone());
    open(&workload).await;
    let trouble = spawn(fleet.clone().trouble(world.clone()));
    let clients: Vec<_> = (0..world.scenario.clients).map(|_| spawn(workload.clone().live())).collect();
    for client in clients {
        // Long enough for every wait of every client, one after the other; a day of standing still is a fault.
        match timeout(Duration::from_hours(24), client).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => world.wrong(format!("a client panicked: {error}")),
            Err(_) => world.wrong("a client waits for a day"),
        }
    }
    fleet.heal(&world);
    if world.scenario.liveness {
        assert_liveness(&workload, &fleet).await;
    }
    trouble.abort();
    checker::all(&workload, &fleet).await;
    let calls = workload.known().calls.len() as u64;
    let simulated_millis = world.elapsed() / 1_000;
    let remains = world.take_result();
    Report {
        seed,
        hash: remains.hash,
        wrong: remains.wrong,
        seen: remains.seen,
        trace: remains.trace,
        calls,
        simulated_millis,
    }
}

/// Puts the events on sale, straight into the store: that they can be made is not what is in question.
async fn open(workload: &Workload) {
    let (world, scenario) = (&workload.world, &workload.world.scenario);
    for number in 0..scenario.events {
        let new = new_event(world, number);
        let (id, request, start) = (new.id, workload.request(), world.elapsed());
        let action = domain::Action::CreateEvent(Box::new(new));
        let command =
            domain::Command { actor: Workload::admin(), request: request.clone(), trace: None, action };
        workload.fleet.shared.execute(vec![command.into()]).await;
        workload.known().events.push(id);
        workload.note(
            (request, Workload::admin()),
            Operation::Edit,
            start,
            Outcome::Done(CallResult::default()),
        );
    }
}

fn new_event(world: &World, number: u64) -> NewEvent {
    let scenario = &world.scenario;
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let text = |what: &str| what.parse().unwrap_or_else(|_| unreachable!("{what} is a name"));
    let currency = "EUR".parse().unwrap_or_else(|_| unreachable!("a currency"));
    let price = Money::new(1_500, currency).unwrap_or_else(|_| unreachable!("15 euros"));
    let now = world.now();
    NewEvent {
        id: domain::EventId::new(now, world.random_bytes()),
        name: text("Concert"),
        venue: text("Hall"),
        starts_at: now.plus_seconds(seconds(scenario.starts_after)),
        time_zone: None,
        capacity: scenario.capacity + u32::try_from(number).unwrap_or(0),
        ticket_types: vec![NewTicketType {
            id: domain::TicketTypeId::new(now, world.random_bytes()),
            name: text("Seat"),
            price,
            capacity: None,
        }],
        single_price: true,
        sales_start_at: scenario.sales_start_after.map(|after| now.plus_seconds(seconds(after))),
        sales_end_at: scenario.sales_end_after.map(|after| now.plus_seconds(seconds(after))),
        hold_seconds: seconds(scenario.hold).max(1),
        cancel_cutoff_seconds: seconds(scenario.cut_off),
        max_tickets_per_booking: 10,
        max_tickets_per_user: scenario.per_user,
    }
}

/// After faults have ended: what is owed is answered, what is overdue is freed, what is cancelled ends, and
/// every event that sells can be booked.
async fn assert_liveness(workload: &Arc<Workload>, fleet: &Fleet) {
    let world = &workload.world;
    workload.resend_open_webhooks().await;
    // A booking that is being worked on is left alone once; one that could not be read, up to 64 rounds.
    let rounds =
        if world.poisoned(|poisoned| poisoned.bookings_ever.is_empty() && poisoned.events_ever.is_empty()) {
            5
        } else {
            70
        };
    let slack = world.scenario.sweep_every * rounds + Duration::from_secs(30);
    let due_before = world.now();
    sleep(slack).await;
    let due = fleet.shared.due_holds(due_before, None, checker::ALL).await.unwrap_or_default();
    for hold in due {
        world.wrong(format!(
            "{} is still held, overdue since {}, {slack:?} after all was well",
            hold.booking, hold.at_micros
        ));
    }
    let cancelled = fleet.shared.cancelled_events(None, checker::ALL).await.unwrap_or_default();
    for cancelled in cancelled.iter().filter(|cancelled| cancelled.has_live_bookings) {
        world.wrong(format!("{} is cancelled and still has live bookings", cancelled.event));
    }
    let events = workload.known().events.clone();
    for id in events {
        if let Ok(Some(event)) = fleet.shared.event(id).await {
            probe(workload, &event).await;
        }
    }
    hang_up(workload).await;
    if world.scenario.relay {
        assert_all_published(world, fleet).await;
    }
}

/// Everything is told, and told again where the stream is emptied or lost while nobody sells.
async fn assert_all_published(world: &World, fleet: &Fleet) {
    assert_published_within(world, fleet, PUBLISHED_WITHIN).await;
    if world.percent(50) {
        world.saw("probe: the stream is deleted");
        fleet.nats.delete();
    } else {
        world.saw("probe: the stream is emptied");
        fleet.nats.empty();
    }
    assert_published_within(world, fleet, REPUBLISHED_WITHIN).await;
    // Long enough for a relay that waits for its turn to notice that another one has it.
    sleep(REPUBLISHED_WITHIN / 2).await;
    for trouble in fleet.relays().into_iter().filter_map(|relay| relay.error) {
        world.wrong(format!("a relay is in trouble although everything is told: {trouble}"));
    }
}

async fn assert_published_within(world: &World, fleet: &Fleet, most: Duration) {
    let until = world.elapsed() + u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
    while !checker::stream(fleet, true).await.is_empty() {
        if world.elapsed() > until {
            return checker::stream(fleet, true)
                .await
                .into_iter()
                .for_each(|what| world.wrong(format!("{most:?} after all was well, {what}")));
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// One more ticket is put on sale, and somebody new gets it at once.
async fn probe(workload: &Workload, event: &Event) {
    let world = &workload.world;
    let over = event.details.status == EventStatus::Cancelled
        || event.details.starts_at <= world.now()
        || event.details.sales_end_at.is_some_and(|end| end <= world.now())
        || event.details.sales_start_at.is_some_and(|start| world.now() < start);
    if over {
        return world.saw("probe: the event is over");
    }
    let patch = EventPatch {
        status: Some(EventStatus::OnSale),
        capacity: Some(event.inventory.capacity + 1),
        ..EventPatch::default()
    };
    let changed = workload.change(event.id, patch).await;
    let user: domain::UserId = "probe".parse().unwrap_or_else(|_| unreachable!("a name"));
    let ask = Operation::Book { user: user.to_string(), quantity: 1 };
    let id = event.id;
    let asked = (domain::Actor::User(user.clone()), Some(id), ask, None);
    let (booked, _) = workload
        .ask(asked, |engine, caller| async move {
            let request = OrderRequest {
                event_id: id,
                user,
                selection: Wish::Quantity(1),
                expected_total: None,
                payment_method: None,
            };
            engine.book(caller, request, None).await.outcome
        })
        .await;
    world.saw("probe: booked");
    if !matches!((&changed, &booked), (Outcome::Done(_), Outcome::Done(_))) {
        world.wrong(format!("{id} cannot be booked after all was well: {changed:?}, {booked:?}"));
    }
}

/// A client that hangs up while it waits for a lock has its command carried out all the same, and whoever
/// holds the lock cannot stop it.
async fn hang_up(workload: &Workload) {
    let world = &workload.world;
    let Ok(page) = workload.fleet.shared.bookings(BookingList::All { after: None }, None, 1).await else {
        return;
    };
    let Some(booking) = page.rows.first() else { return };
    let Some(_held) = workload.fleet.hold(booking.id).await else { return };
    let (engine, _) = workload.fleet.any(world).await;
    let (request, start) = (workload.request(), world.elapsed());
    let caller = Caller { actor: Workload::admin(), request: request.clone(), trace: None, deadline: None };
    let call = engine.cancel(caller, booking.id, None, None);
    world.saw("probe: a client hangs up");
    if timeout(Duration::from_millis(50), call).await.is_ok() {
        return world.wrong("a command did not wait for a lock that is held");
    }
    sleep(Duration::from_secs(1)).await;
    if !world.was_executed(request.as_str()) {
        world.wrong("a command ended with its client, or waits for a lock for ever");
    }
    workload.note(
        (request, Workload::admin()),
        Operation::Cancel { booking: booking.id.to_string() },
        start,
        Outcome::Unknown,
    );
}
