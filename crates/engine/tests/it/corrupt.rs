//! Corrupt rows: one in every column of every table, with every kind of value, each of a different event. All
//! other events are unaffected: their sales, chores, lists, statistics, and the reads of the relay.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coordination::Rule;
use coordination::local::{LocalLimiter, LocalLock};
use domain::{
    Actor, Answer, Booking, BookingId, BookingStatus, CapturedPayment, Event, EventId, EventPatch,
    EventStatus, NewEvent, Order, RefundOutcome, RefundStatus, TicketSelection, Timestamp,
};
use engine::{Caller, CommandOutput, Engine, Error, NoopListener, Policy, Ports, SystemClock, SystemIds};
use futures_util::future::join_all;
use rusqlite::Connection;
use store::{BookingList, Consumer, CursorFilter, Fault, Idempotency, Page, Sqlite, SqliteOptions, Store};
use testkit::eventually;

use crate::fixture::{new_event, reader, user};

/// The interval of the chores in these tests.
const SWEEP_EVERY: Duration = Duration::from_millis(200);

/// Direct access to the database of a store.
#[async_trait]
pub(crate) trait DatabaseAccess: Send + Sync {
    /// Every column of every table of the program: table, column, type.
    async fn columns(&self) -> Vec<(String, String, String)>;
    /// Changes rows without those checks that can be disabled; returns the number of rows, or the error of
    /// the database.
    async fn change(&self, sql: &str) -> Result<u64, String>;
    /// An id as an SQL literal.
    fn literal(&self, id: &[u8; 16]) -> String;
    /// The beginning of a statement, and a table `n` for its FROM clause with a column `i` from 1 to `count`.
    fn numbers(&self, count: u32) -> (String, String);
    /// An SQL expression for the id that is made from a number.
    fn id(&self, number: &str) -> String;
    /// Does what the database would do in the background after many changes.
    async fn analyze(&self);
}

pub(crate) fn engine_on(store: Arc<dyn Store>) -> Arc<Engine> {
    let clock = Arc::new(SystemClock);
    let ports = Ports {
        store,
        lock: Arc::new(LocalLock::new(clock.clone())),
        lease: None,
        limiter: Arc::new(LocalLimiter::new(clock.clone())),
        clock,
        ids: Arc::new(SystemIds),
        commit_listener: Arc::new(NoopListener),
    };
    let rule = |name| Rule::parse(name, "500/1s").unwrap();
    let policy = Policy {
        hold_seconds: 600,
        cancel_cutoff_seconds: 86_400,
        book: rule("book"),
        cancel: rule("cancel"),
    };
    Engine::start(ports, policy)
}

fn caller(actor: Actor) -> Caller {
    Caller { actor, request: "req-test".parse().unwrap(), trace: None, deadline: None }
}

fn service() -> Caller {
    caller(Actor::Service(user("gateway")))
}

pub(crate) fn admin() -> Caller {
    caller(Actor::Admin(user("boss")))
}

/// An event with holds of this length.
async fn create(engine: &Arc<Engine>, hold_seconds: u32) -> Event {
    create_as(
        engine,
        NewEvent { hold_seconds, max_tickets_per_user: Some(9), ..new_event(engine, 86_400 * 30) },
    )
    .await
}

/// An event with this number of tickets.
pub(crate) async fn create_large(engine: &Arc<Engine>, capacity: u32) -> Event {
    create_as(engine, NewEvent { capacity, ..new_event(engine, 86_400 * 30) }).await
}

/// Retries calls that fail because the machine is slow: nothing was done, and the server ends idle
/// transactions.
async fn retry_unavailable(
    attempt: impl AsyncFn() -> Result<CommandOutput, Error>,
) -> Result<CommandOutput, Error> {
    eventually("a result", async || match attempt().await {
        Err(Error::Fault(Fault::Unavailable(_)) | Error::Overloaded) => None,
        result => Some(result),
    })
    .await
}

async fn create_as(engine: &Arc<Engine>, new: NewEvent) -> Event {
    match retry_unavailable(async || engine.create_event(admin(), new.clone(), None).await).await {
        Ok(CommandOutput::Fresh(Answer::Event(event))) => *event,
        other => panic!("no event: {other:?}"),
    }
}

pub(crate) async fn order(
    engine: &Arc<Engine>,
    event_id: EventId,
    name: &str,
    idempotency: Option<Arc<Idempotency>>,
) -> Result<CommandOutput, Error> {
    retry_unavailable(async || {
        let user = user(name);
        let selection = TicketSelection::Quantity(1);
        let order = Order::new(event_id, engine.booking_id(), user, selection);
        engine.book(service(), order, idempotency.clone()).await.outcome
    })
    .await
}

pub(crate) fn booking_of(output: Result<CommandOutput, Error>) -> Arc<Booking> {
    match output {
        Ok(CommandOutput::Fresh(Answer::Booking(booking))) => booking,
        other => panic!("no booking: {other:?}"),
    }
}

pub(crate) async fn confirm(engine: &Arc<Engine>, id: BookingId) -> Arc<Booking> {
    let payment = CapturedPayment { transaction: "t".parse().unwrap(), amount: None };
    booking_of(retry_unavailable(async || engine.confirm(service(), id, payment.clone(), None).await).await)
}

async fn cancel(engine: &Arc<Engine>, id: BookingId) -> Result<CommandOutput, Error> {
    retry_unavailable(async || engine.cancel(service(), id, None, None).await.outcome).await
}

/// An event with a booking that will soon be overdue, one that is paid, one that was cancelled and refunded,
/// a stored response, and a relay cursor.
struct Victim {
    event: EventId,
    held: BookingId,
    corruption: String,
}

async fn create_victim(engine: &Arc<Engine>, store: &dyn Store, corruption: String) -> Victim {
    let event = create(engine, 1).await.id;
    let buyer = format!("buyer-{event}");
    let held = booking_of(order(engine, event, &buyer, None).await).id;
    let paid = booking_of(order(engine, event, &buyer, None).await);
    confirm(engine, paid.id).await;
    let cancelled = booking_of(order(engine, event, &buyer, None).await);
    confirm(engine, cancelled.id).await;
    cancel(engine, cancelled.id).await.unwrap();
    let serialize_response = Box::new(|_: &Answer, _| Some(b"made".to_vec()));
    let idempotency = Idempotency {
        scope: "s".to_owned(),
        key: event.to_string(),
        fingerprint: [0; 32],
        serialize_response,
    };
    order(engine, event, &buyer, Some(Arc::new(idempotency))).await.unwrap();
    store.save_cursors(&Consumer::relay(stream()), vec![(event, 2)]).await.unwrap();
    Victim { event, held, corruption }
}

/// The creation time of the stream to which the cursors belong.
fn stream() -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000).unwrap()
}

/// Invalid values for a column of this type.
fn values(kind: &str) -> &'static [&'static str] {
    match kind {
        "INTEGER" | "bigint" => {
            &["-9000000000000000000", "-1", "0", "1099511627776", "9000000000000000000", "NULL"]
        }
        "numeric" => &["-1", "1e60", "0.5", "NULL"],
        "TEXT" => {
            &["''", "'no such word'", "CAST(X'5BFF' AS TEXT)", "hex(zeroblob(5000))", "'-1'", "7", "NULL"]
        }
        "text" => &["''", "'no such word'", "repeat('x', 10000)", "'-1'", "NULL"],
        "BLOB" => &["X''", "X'00'", "zeroblob(16)", "zeroblob(17)", "'text'", "NULL"],
        "uuid" => &["'00000000-0000-0000-0000-000000000000'", "NULL"],
        "bytea" => &[r"'\x'", r"'\x00'", "NULL"],
        "boolean" => &["true", "NULL"],
        other => panic!("no values for the type {other}"),
    }
}

/// The condition that selects one row of an event in a table.
fn row_of(table: &str, event: &str, id: EventId) -> String {
    match table {
        "events" => format!("id = {event}"),
        "bookings" => format!("event_id = {event} AND status = 'pending' AND last_seq = 2"),
        "ledger" => format!("event_id = {event} AND seq = 3"),
        "idempotency" => format!("key = '{id}'"),
        _ => format!("event_id = {event}"),
    }
}

/// Corrupts a row of each victim; returns the victims whose rows could be changed, and the errors of the
/// others.
async fn corrupt_rows(
    database: &dyn DatabaseAccess,
    engine: &Arc<Engine>,
    store: &dyn Store,
) -> (Vec<Victim>, Vec<String>) {
    let mut columns = database.columns().await;
    // This version does not read it.
    columns.retain(|(table, ..)| table != "published");
    let tables: std::collections::BTreeSet<&str> = columns.iter().map(|(table, ..)| table.as_str()).collect();
    assert_eq!(tables.len(), 9, "{tables:?}");
    let all = columns.iter().flat_map(|(table, column, kind)| {
        values(kind)
            .iter()
            .map(move |value| (table.as_str(), format!("{table}.{column} = {value}"), column, value))
    });
    let all: Vec<_> = all.collect();
    let victims = join_all(all.iter().map(|(_, text, ..)| create_victim(engine, store, text.clone()))).await;
    // Wait until their holds are overdue.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let (mut corrupted, mut refused) = (Vec::new(), Vec::new());
    for ((table, text, column, value), victim) in all.iter().zip(victims) {
        let rows = row_of(table, &database.literal(victim.event.bytes()), victim.event);
        match database.change(&format!("UPDATE {table} SET {column} = {value} WHERE {rows}")).await {
            Ok(changed) => {
                assert_eq!(changed, 1, "{text}");
                corrupted.push(victim);
            }
            Err(error) => refused.push(format!("{text}: {error}")),
        }
    }
    (corrupted, refused)
}

/// All rows of a list, read in pages of seven.
async fn read_all_pages<T, F>(mut page: impl FnMut(Option<String>) -> F) -> Vec<T>
where
    F: Future<Output = Result<Page<T>, Error>>,
{
    let mut all = Vec::new();
    let mut cursor = None;
    for _ in 0..10_000 {
        let Page { rows, next } = page(cursor).await.expect("a page");
        all.extend(rows);
        let Some(next) = next else { return all };
        cursor = Some(next);
    }
    panic!("a list has no end");
}

fn parse_cursor<T: std::str::FromStr>(cursor: Option<String>) -> Option<T> {
    cursor.map(|text| text.parse().unwrap_or_else(|_| panic!("{text} is not a cursor")))
}

/// Checks that every list contains these bookings, once each.
async fn lists_show(engine: &Arc<Engine>, event: &Event, bookings: &[BookingId]) {
    let reader = reader();
    let name = format!("good-{}", event.id);
    for status in
        [None, Some(BookingStatus::Confirmed), Some(BookingStatus::Cancelled), Some(BookingStatus::Expired)]
    {
        let all = read_all_pages(|after| {
            engine.bookings(&reader, BookingList::All { after: parse_cursor(after) }, status, 7)
        })
        .await;
        let list = |after| BookingList::OfEvent { event: event.id, after: parse_cursor(after) };
        let of_event = read_all_pages(|after| engine.bookings(&reader, list(after), status, 7)).await;
        let list = |after| BookingList::OfUser {
            user: user(&name),
            event: Some(event.id),
            after: parse_cursor(after),
        };
        let of_user = read_all_pages(|after| engine.bookings(&reader, list(after), status, 7)).await;
        for list in [all, of_event, of_user] {
            for id in bookings {
                let now = engine.booking(&reader, &Actor::System, *id).await.unwrap();
                let is_listed = status.is_none_or(|status| status == now.status());
                let times = list.iter().filter(|booking| booking.id == *id).count();
                assert_eq!(times, usize::from(is_listed), "{status:?}: {now:?}");
            }
        }
    }
    let events = read_all_pages(|after| engine.events(&reader, parse_cursor(after), 7)).await;
    assert_eq!(events.iter().filter(|listed| listed.id == event.id).count(), 1);
    let entries =
        read_all_pages(|after| engine.ledger(&reader, event.id, parse_cursor(after).unwrap_or(0), 7)).await;
    assert!(entries.iter().map(|entry| entry.seq).eq(1..=entries.len() as u64), "{entries:?}");
}

/// Runs the whole lifecycle of bookings of an event that is not corrupt.
async fn check_lifecycle(engine: &Arc<Engine>, event: &Event) {
    let reader = reader();
    let name = format!("good-{}", event.id);
    let mut watching = engine.watch(&reader, event.id).await.unwrap();
    watching.borrow_and_update();
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(booking_of(order(engine, event.id, &name, None).await).id);
    }
    confirm(engine, ids[0]).await;
    confirm(engine, ids[1]).await;
    cancel(engine, ids[1]).await.unwrap();
    eventually("subscribers get the change", async || watching.has_changed().unwrap().then_some(())).await;
    eventually("the clean-up frees overdue holds", async || {
        let booking = engine.booking(&reader, &Actor::System, ids[2]).await.unwrap();
        (booking.status() == BookingStatus::Expired).then_some(())
    })
    .await;
    lists_show(engine, event, &ids).await;
    let refunds = read_all_pages(|after| {
        engine.refunds(&reader, Some(RefundStatus::Requested), parse_cursor(after), 7)
    })
    .await;
    let refund = refunds.iter().find(|refund| refund.booking_id == ids[1]).expect("a refund");
    let outcome = RefundOutcome { succeeded: true, provider_reference: "r".parse().unwrap() };
    retry_unavailable(async || engine.settle(service(), refund.id, outcome.clone(), None).await)
        .await
        .unwrap();
    let off = EventPatch { status: Some(EventStatus::Cancelled), ..EventPatch::default() };
    retry_unavailable(async || engine.update_event(admin(), event.id, off.clone()).await).await.unwrap();
    eventually("bookings of a cancelled event are cancelled", async || {
        let booking = engine.booking(&reader, &Actor::System, ids[0]).await.unwrap();
        (booking.status() == BookingStatus::Cancelled).then_some(())
    })
    .await;
    let refunds = read_all_pages(|after| engine.refunds(&reader, None, parse_cursor(after), 7)).await;
    assert_eq!(refunds.iter().filter(|refund| refund.event_id == event.id).count(), 2);
}

/// Checks the queries of the relay, of the chores and of reads that concern all events.
async fn check_relay_and_chores(engine: &Arc<Engine>, store: &dyn Store, event: &Event) {
    for filter in [CursorFilter::All, CursorFilter::Behind] {
        let (mut after, mut found) = (None, None);
        loop {
            let page = store.cursors(&Consumer::relay(stream()), filter, after, 7).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.event);
            found = found.or_else(|| page.iter().find(|cursor| cursor.event == event.id).copied());
        }
        let found = found.expect("the event is behind");
        let entries = store.entries_with_bookings(event.id, 0, 100).await.unwrap();
        assert_eq!((found.ledger, found.processed), (entries.len() as u64, 0));
    }
    store.save_cursors(&Consumer::relay(stream()), vec![(event.id, 1)]).await.unwrap();
    assert!(store.pending_entry_count(Consumer::RELAY).await.unwrap() > 0);
    let stats = engine.stats(&reader()).await.unwrap();
    assert!(stats.per_currency.iter().any(|(currency, _)| currency.code() == "EUR"));
    engine.audit().await.unwrap();
    store.prune_keys(engine.now().minus_seconds(60), 10_000).await.unwrap();
}

/// Checks that a command or a read that needs a corrupt row fails, and only with that fault.
async fn check_victims_fail_alone(engine: &Arc<Engine>, victims: &[Victim]) -> (usize, usize) {
    let (mut events, mut bookings) = (0, 0);
    let is_own = |output: &Result<CommandOutput, Error>| {
        matches!(output, Ok(_) | Err(Error::Refused(_) | Error::Fault(Fault::Broken(_))))
    };
    for victim in victims {
        let output = order(engine, victim.event, "late", None).await;
        assert!(is_own(&output), "{}: {output:?}", victim.corruption);
        if let Err(Error::Fault(Fault::Broken(_))) = engine.event(&reader(), victim.event).await {
            events += 1;
            assert!(
                matches!(output, Err(Error::Fault(Fault::Broken(_)))),
                "{}: {output:?}",
                victim.corruption
            );
        }
        let is_unreadable = matches!(
            engine.booking(&reader(), &Actor::System, victim.held).await,
            Err(Error::Fault(Fault::Broken(_)))
        );
        let output = cancel(engine, victim.held).await;
        assert!(is_own(&output), "{}: {output:?}", victim.corruption);
        if is_unreadable {
            bookings += 1;
            assert!(
                matches!(output, Err(Error::Fault(Fault::Broken(_)))),
                "{}: {output:?}",
                victim.corruption
            );
        }
    }
    (events, bookings)
}

/// Runs the whole test; at least these numbers of events and bookings must become unreadable.
pub(crate) async fn check_other_events_continue(
    store: Arc<dyn Store>,
    database: &dyn DatabaseAccess,
    (events_min, bookings_min): (usize, usize),
) {
    let engine = &engine_on(store.clone());
    let before = create(engine, 1).await;
    let (victims, refused) = corrupt_rows(database, engine, &*store).await;
    let mut watched = Vec::new();
    for victim in &victims {
        // The events that can still be read are watched together with those that cannot.
        watched.extend(engine.watch(&reader(), victim.event).await);
    }
    let after = create(engine, 1).await;
    let start = engine.now();
    engine.start_chores(SWEEP_EVERY);
    check_lifecycle(engine, &before).await;
    check_lifecycle(engine, &after).await;
    check_relay_and_chores(engine, &*store, &after).await;
    let (events, bookings) = check_victims_fail_alone(engine, &victims).await;
    check_lifecycle(engine, &create(engine, 1).await).await;
    eventually("every chore finishes", async || {
        let is_done =
            |name| engine.chores().iter().any(|chore| chore.name() == name && chore.last_success() > start);
        (is_done("sweeper") && is_done("event-cancellation")).then_some(())
    })
    .await;
    engine.drain().await;
    println!(
        "{} rows are corrupt: {events} events and {bookings} bookings cannot be read; the database refuses \
         {}: {refused:#?}",
        victims.len(),
        refused.len(),
    );
    assert!(events >= events_min && bookings >= bookings_min, "too few rows are corrupt");
}

/// A SQLite file, and connections that bypass its owner's lock.
pub(crate) struct SqliteFile(pub(crate) std::path::PathBuf);

#[async_trait]
impl DatabaseAccess for SqliteFile {
    async fn columns(&self) -> Vec<(String, String, String)> {
        let connection = Connection::open(&self.0).unwrap();
        let sql = "SELECT t.name, c.name, c.type FROM pragma_table_list t, pragma_table_info(t.name) c
                   WHERE t.schema = 'main' AND t.name NOT LIKE 'sqlite_%'";
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    async fn change(&self, sql: &str) -> Result<u64, String> {
        let connection = Connection::open(&self.0).unwrap();
        connection.busy_timeout(Duration::from_mins(1)).unwrap();
        connection.execute_batch("PRAGMA ignore_check_constraints = ON; PRAGMA foreign_keys = OFF").unwrap();
        connection.execute(sql, []).map(|rows| rows as u64).map_err(|error| error.to_string())
    }

    fn literal(&self, id: &[u8; 16]) -> String {
        format!("X'{:032x}'", u128::from_be_bytes(*id))
    }

    fn numbers(&self, count: u32) -> (String, String) {
        let with = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i <";
        (format!("{with} {count})"), "n".to_owned())
    }

    fn id(&self, number: &str) -> String {
        format!("unhex(printf('%032x', {number}))")
    }

    async fn analyze(&self) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn r6_a_corrupt_row_of_any_column_affects_only_its_event() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("box.db");
    let options = SqliteOptions { clock: Arc::new(SystemClock), inline: false };
    let store = Arc::new(Sqlite::open(&path, true, &options).unwrap());
    check_other_events_continue(store, &SqliteFile(path), (100, 60)).await;
}
