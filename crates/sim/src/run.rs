//! A run of one seed, from an empty store to the checkers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::{Event, EventPatch, EventStatus, Money, NewEvent, NewTicketType, TicketSelection};
use engine::Caller;
use store::{BookingList, Sqlite, SqliteOptions, Store as _};
use testkit::history::{CallResult, Operation, Outcome};
use tokio::time::{sleep, timeout};

use crate::checker;
use crate::fleet::Fleet;
use crate::scenario::Scenario;
use crate::spawn::spawn;
use crate::stream_checker::{ROWS_MAX, check_stream};
use crate::workload::{CallSpec, Workload};
use crate::world::{CommonClock, World};

/// Longest time from the end of faults until every entry is published: the delay of a message in flight, the
/// lease of a crashed relay, and a few polls.
const PUBLISHED_WITHIN: Duration = Duration::from_mins(1);
/// Longest time until every entry is published again to a stream that was lost. This is the documented
/// maximum.
const REPUBLISHED_WITHIN: Duration = Duration::from_secs(30);

/// The report of one seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// A hash of the trace. The same seed gives the same hash.
    pub hash: u64,
    /// A description of every violation of an invariant.
    pub violations: Vec<String>,
    /// Coverage goals and other events that were reached, and how often.
    pub coverage: BTreeMap<String, u64>,
    /// The trace, if it was recorded.
    pub trace: Vec<String>,
    /// Number of client calls.
    pub calls: u64,
    /// Simulated time in milliseconds.
    pub simulated_millis: u64,
}

/// Simulates one seed. Even seeds test safety: faults continue until all clients have ended. Odd seeds end
/// faults then, and test liveness. `record` keeps the trace.
///
/// # Panics
///
/// Panics if no runtime can be built or no in-memory store can be opened.
pub fn run(seed: u64, record: bool) -> Report {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build();
    let runtime = runtime.unwrap_or_else(|error| panic!("cannot build a single-threaded runtime: {error}"));
    runtime.block_on(simulate(seed, record))
}

async fn simulate(seed: u64, record: bool) -> Report {
    let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed);
    let scenario = Scenario::draw(seed, &mut rng);
    let world = World::new(scenario, rng, record);
    let options = SqliteOptions { clock: Arc::new(CommonClock(world.clone())), inline: true };
    let store =
        Sqlite::in_memory(&options).unwrap_or_else(|error| panic!("cannot open an in-memory store: {error}"));
    let fleet = Fleet::new(&world, Arc::new(store));
    let workload = Workload::new(world.clone(), fleet.clone());
    create_events(&workload).await;
    let faults = spawn(fleet.clone().inject_faults(world.clone()));
    let clients: Vec<_> = (0..world.scenario.clients).map(|_| spawn(workload.clone().run_client())).collect();
    for client in clients {
        // Longer than all waits of a client together: a client that needs a day is stuck.
        match timeout(Duration::from_hours(24), client).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => world.report_violation(format!("a client panicked: {error}")),
            Err(_) => world.report_violation("a client is stuck for a day"),
        }
    }
    fleet.heal(&world);
    if world.scenario.liveness {
        assert_liveness(&workload, &fleet).await;
    }
    faults.abort();
    checker::check_all(&workload, &fleet).await;
    let calls = workload.known().calls.len() as u64;
    let simulated_millis = world.elapsed() / 1_000;
    let result = world.take_result();
    Report {
        seed,
        hash: result.hash,
        violations: result.violations,
        coverage: result.coverage,
        trace: result.trace,
        calls,
        simulated_millis,
    }
}

/// Creates the events directly in the store, without faults: their creation is not under test.
async fn create_events(workload: &Workload) {
    let world = &workload.world;
    let scenario = &world.scenario;
    for number in 0..scenario.events {
        let new = new_event(world, number);
        let id = new.id;
        let request = workload.new_request_id();
        let start = world.elapsed();
        let action = domain::Action::CreateEvent(Box::new(new));
        let command =
            domain::Command { actor: Workload::admin(), request: request.clone(), trace: None, action };
        workload.fleet.shared.execute(vec![command.into()]).await;
        workload.known().events.push(id);
        let call = CallSpec { actor: Workload::admin(), event: None, operation: Operation::Edit, key: None };
        workload.record_call(call, &request, start, Outcome::Done(CallResult::default()));
    }
}

fn new_event(world: &World, number: u64) -> NewEvent {
    let scenario = &world.scenario;
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let text = |text: &str| text.parse().unwrap_or_else(|_| unreachable!("{text} is a name"));
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

/// Checks liveness after faults have ended: open webhooks get a definite outcome, overdue holds expire,
/// bookings of cancelled events are cancelled, and every event on sale can be booked.
async fn assert_liveness(workload: &Arc<Workload>, fleet: &Fleet) {
    let world = &workload.world;
    workload.resend_open_webhooks().await;
    // The sweeper skips a locked booking once, and backs off from one that it could not read for up to 64
    // rounds.
    let rounds =
        if world.damaged_rows(|damaged| damaged.bookings_ever.is_empty() && damaged.events_ever.is_empty()) {
            5
        } else {
            70
        };
    let slack = world.scenario.sweep_every * rounds + Duration::from_secs(30);
    let due_before = world.now();
    sleep(slack).await;
    let due = fleet.shared.due_holds(due_before, None, ROWS_MAX).await.unwrap_or_default();
    for hold in due {
        world.report_violation(format!(
            "{} is still held, overdue since {}, {slack:?} after faults ended",
            hold.booking, hold.at_micros
        ));
    }
    let cancelled = fleet.shared.cancelled_events(None, ROWS_MAX).await.unwrap_or_default();
    for cancelled in cancelled.iter().filter(|cancelled| cancelled.has_live_bookings) {
        world.report_violation(format!("{} is cancelled and still has live bookings", cancelled.event));
    }
    let events = workload.known().events.clone();
    for id in events {
        if let Ok(Some(event)) = fleet.shared.event(id).await {
            probe(workload, &event).await;
        }
    }
    probe_disconnect(workload).await;
    if world.scenario.relay {
        assert_all_published(world, fleet).await;
    }
}

/// Checks that every entry is published, and published again after the stream is purged or lost without new
/// sales.
async fn assert_all_published(world: &World, fleet: &Fleet) {
    assert_published_within(world, fleet, PUBLISHED_WITHIN).await;
    if world.chance_percent(50) {
        world.record_coverage("probe: stream deleted");
        fleet.nats.delete();
    } else {
        world.record_coverage("probe: stream purged");
        fleet.nats.purge();
    }
    assert_published_within(world, fleet, REPUBLISHED_WITHIN).await;
    // Long enough for a standby relay to notice that another one is active.
    sleep(REPUBLISHED_WITHIN / 2).await;
    for error in fleet.relays().into_iter().filter_map(|relay| relay.error) {
        world.report_violation(format!("a relay reports an error although everything is published: {error}"));
    }
}

async fn assert_published_within(world: &World, fleet: &Fleet, max: Duration) {
    let until = world.elapsed() + u64::try_from(max.as_micros()).unwrap_or(u64::MAX);
    while !check_stream(&fleet.shared, &fleet.nats, true).await.is_empty() {
        if world.elapsed() > until {
            return check_stream(&fleet.shared, &fleet.nats, true).await.into_iter().for_each(|violation| {
                world.report_violation(format!("not published within {max:?}: {violation}"));
            });
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Adds one ticket to the capacity, and checks that a new user can book it at once.
async fn probe(workload: &Workload, event: &Event) {
    let world = &workload.world;
    let not_on_sale = event.details.status == EventStatus::Cancelled
        || event.details.starts_at <= world.now()
        || event.details.sales_end_at.is_some_and(|end| end <= world.now())
        || event.details.sales_start_at.is_some_and(|start| world.now() < start);
    if not_on_sale {
        return world.record_coverage("probe: the event is not on sale");
    }
    let patch = EventPatch {
        status: Some(EventStatus::OnSale),
        capacity: Some(event.inventory.capacity + 1),
        ..EventPatch::default()
    };
    let changed = workload.update_event(event.id, patch).await;
    let user: domain::UserId = "probe".parse().unwrap_or_else(|_| unreachable!("a name"));
    let operation = Operation::Book { user: user.to_string(), quantity: 1 };
    let id = event.id;
    let call = CallSpec { actor: domain::Actor::User(user.clone()), event: Some(id), operation, key: None };
    let (booked, _) = workload
        .call(call, |engine, caller| async move {
            let order = domain::Order::new(id, engine.booking_id(), user, TicketSelection::Quantity(1));
            engine.book(caller, order, None).await.outcome
        })
        .await;
    world.record_coverage("probe: booked");
    if !matches!((&changed, &booked), (Outcome::Done(_), Outcome::Done(_))) {
        world.report_violation(format!("{id} cannot be booked after faults ended: {changed:?}, {booked:?}"));
    }
}

/// Checks that the command of a client that disconnects while it waits for a lock is still executed, and that
/// the holder of the lock cannot prevent it.
async fn probe_disconnect(workload: &Workload) {
    let world = &workload.world;
    let Ok(page) = workload.fleet.shared.bookings(BookingList::All { after: None }, None, 1).await else {
        return;
    };
    let Some(booking) = page.rows.first() else { return };
    let Some(_guard) = workload.fleet.lock_booking(booking.id).await else { return };
    let (engine, _) = workload.fleet.any_instance(world).await;
    let request = workload.new_request_id();
    let start = world.elapsed();
    let caller = Caller { actor: Workload::admin(), request: request.clone(), trace: None, deadline: None };
    let call = engine.cancel(caller, booking.id, None, None);
    world.record_coverage("probe: a client disconnects");
    if timeout(Duration::from_millis(50), call).await.is_ok() {
        return world.report_violation("a command did not wait for a lock that is held");
    }
    sleep(Duration::from_secs(1)).await;
    if !world.was_executed(request.as_str()) {
        world.report_violation("a command ended with its client, or waits for a lock indefinitely");
    }
    let operation = Operation::Cancel { booking: booking.id.to_string() };
    let call = CallSpec { actor: Workload::admin(), event: None, operation, key: None };
    workload.record_call(call, &request, start, Outcome::Unknown);
}
