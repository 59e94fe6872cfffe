//! One write transaction on PostgreSQL: two round trips, one to lock and load, one to write and commit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use domain::{BookingId, EventId, HoldScope, Timestamp, UserId};
use futures_util::FutureExt as _;
use futures_util::future::{join, join3};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::confirm::Confirmation;
use super::outcome::{self, Witness};
use super::read::{self, RowReader};
use super::session::{Call, Connector, Role, Session, Value, describe, fault};
use super::sql::Sql;
use super::{LOCK_WAIT_MAX, ROW_WAIT_MAX, TRANSACTION_MAX, write};
use crate::execute::{LockWait, Writer};
use crate::fold::{Changes, Hold, Loaded, OverdueHoldPage, OverdueQuery, Tx};
use crate::row::hex;
use crate::store::USER_WINDOW;
use crate::{Cause, Fault, IDEMPOTENCY_TTL_SECONDS, Submission};

/// Pause before a batch is tried again that met somebody else's.
const CONFLICT_PAUSE: Duration = Duration::from_millis(3);

/// What begins a transaction.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
/// What commits whatever was done since the last one.
const COMMIT: &str = "COMMIT";

/// Longest wait of a batch for the confirmation of what was committed before it. Short: nobody can be served
/// meanwhile, and those who wait learn soon that nothing was done.
const CONFIRMATION_WAIT_MAX: Duration = Duration::from_secs(1);

/// One connection that carries out batches, made again whenever it is lost.
pub(super) struct PostgresWriter {
    connector: Arc<Connector>,
    link: Link,
    /// Whether the last transaction failed only because of somebody else's.
    conflicted: bool,
    /// Whether the last transaction failed because somebody else has locked what it needs.
    blocked: bool,
}

/// A writer's connection.
#[derive(Default)]
#[expect(clippy::large_enum_variant, reason = "there are two of them")]
pub(super) enum Link {
    /// There is none.
    #[default]
    Lost,
    /// Ready for a batch.
    Ready(Session),
    /// There is none, and what was committed on the last one may be only here and on no standby.
    Unconfirmed,
    /// That is being found out.
    Confirming(Confirmation),
}

pub(super) struct PostgresTx<'w> {
    writer: &'w mut PostgresWriter,
    /// When the asker has waited long enough: whatever has not been sent by then is not done.
    deadline: Instant,
    /// Begun, and neither committed nor rolled back.
    is_open: bool,
    /// Longest wait for a row that somebody else has locked.
    row_wait: Duration,
    now: Timestamp,
    /// The transaction as PostgreSQL names it.
    xid: String,
    /// Whether commits wait for standbys.
    has_standbys: bool,
}

impl PostgresWriter {
    pub(super) fn new(connector: Arc<Connector>) -> Self {
        Self { connector, link: Link::Lost, conflicted: false, blocked: false }
    }

    /// Connects where no connection is known to stand, and has what may not be on the standbys confirmed first:
    /// nothing is built on it, and commits that hang do not pile up.
    pub(super) async fn connect(&mut self) -> Result<(), Fault> {
        match &self.link {
            Link::Ready(session) if !session.is_closed() => return Ok(()),
            Link::Ready(_) | Link::Lost => {
                self.link = Link::Lost;
                self.link = Link::Ready(self.connector.open(Role::Writer).await?);
                return Ok(());
            }
            Link::Unconfirmed => {
                let session = self.connector.open(Role::Writer).await?;
                self.link = Link::Confirming(Confirmation::start(session));
            }
            Link::Confirming(_) => {}
        }
        self.confirmed(Instant::now() + CONFIRMATION_WAIT_MAX).await
    }

    /// Has everything that was committed before confirmed.
    async fn confirm(&mut self, deadline: Instant) -> Result<(), Fault> {
        match std::mem::take(&mut self.link) {
            Link::Ready(session) => self.link = Link::Confirming(Confirmation::start(session)),
            link => self.link = link,
        }
        self.confirmed(deadline).await
    }

    /// Waits for the confirmation that is under way.
    async fn confirmed(&mut self, deadline: Instant) -> Result<(), Fault> {
        let Link::Confirming(confirmation) = &mut self.link else {
            return Err(Fault::Unavailable(Cause::new("there is no connection")));
        };
        match confirmation.wait(deadline).await {
            Some(Ok(session)) => {
                self.link = Link::Ready(session);
                Ok(())
            }
            Some(Err(fault)) => {
                self.link = Link::Unconfirmed;
                Err(fault)
            }
            None => Err(Fault::Unavailable(Cause::new("commits wait for a standby"))),
        }
    }
}

impl Writer for PostgresWriter {
    type Tx<'w> = PostgresTx<'w>;

    async fn begin(&mut self, lock_wait: LockWait) -> Result<PostgresTx<'_>, Fault> {
        self.blocked = false;
        if std::mem::take(&mut self.conflicted) {
            // Long enough for whoever was met to finish; not the same for every process.
            sleep(CONFLICT_PAUSE.saturating_mul(1 + std::process::id() % 5)).await;
        }
        self.connect().await?;
        let deadline = Instant::now() + TRANSACTION_MAX;
        let now = Timestamp::from_micros(0).map_err(|error| Fault::Broken(Cause::new(error)))?;
        let row_wait = match lock_wait {
            LockWait::Short => ROW_WAIT_MAX,
            LockWait::Long => LOCK_WAIT_MAX,
        };
        let (xid, has_standbys) = (String::new(), false);
        Ok(PostgresTx { writer: self, deadline, is_open: false, row_wait, now, xid, has_standbys })
    }

    fn has_conflicted(&self) -> bool {
        self.conflicted
    }

    fn is_blocked(&self) -> bool {
        self.blocked
    }
}

/// What is not committed is undone, also on the way out of an error: the word is sent at once, and nobody
/// waits for the answer.
impl Drop for PostgresTx<'_> {
    fn drop(&mut self) {
        self.roll_back();
    }
}

impl Tx for PostgresTx<'_> {
    async fn load(&mut self, batch: &[Submission]) -> Result<Loaded, Fault> {
        let wanted = BatchKeys::by(batch);
        match self.lock_and_load(&wanted, Sql::EventLock).await {
            Err(_) if self.writer.blocked => {
                self.roll_back();
                self.writer.blocked = false;
                self.row_wait = ROW_WAIT_MAX;
                let loaded = self.lock_and_load(&wanted, Sql::EventLockSkipLocked).await;
                // Only a table is waited for here: whoever has locked it keeps all events busy.
                if std::mem::take(&mut self.writer.blocked) {
                    return Ok(Loaded { busy: wanted.events, ..Loaded::default() });
                }
                loaded
            }
            done => done,
        }
    }

    async fn now(&mut self) -> Result<Timestamp, Fault> {
        Ok(self.now)
    }

    async fn overdue(&mut self, wanted: &OverdueQuery<'_>) -> Result<OverdueHoldPage, Fault> {
        let call = overdue_call(wanted);
        let answer = timeout_at(self.deadline, session(self.writer)?.call(&call)).await;
        let Ok(rows) = answer else { return Err(self.timed_out()) };
        let rows = rows.map_err(|error| self.failed(&error))?;
        let is_paged = call.sql == Sql::BookingOverdue;
        hold_page(&rows, is_paged.then_some(wanted.limit as usize)).map_err(Fault::Broken)
    }

    async fn commit(mut self, changes: Changes) -> Result<(), Fault> {
        let writes: Vec<_> = write::calls(&changes).into_iter().map(Some).collect();
        let witness = Witness::of(&changes);
        let receipt = Call { sql: Sql::CommitStatus, values: vec![Box::new(self.xid.clone())] };
        let session = session(self.writer)?;
        let (backend, warnings) = (session.backend, session.warnings());
        // It ends with what is sent now, either way.
        self.is_open = false;
        let sent =
            join3(session.pipeline(&writes), session.client.batch_execute(COMMIT), session.call(&receipt));
        let why = match timeout_at(self.deadline, sent).await {
            Ok((written, committed, receipt)) => {
                let calls = writes.iter().flatten();
                for (call, error) in calls.zip(written).filter_map(|(call, row)| Some((call, row.err()?))) {
                    // Whatever the server refuses it has not committed: COMMIT stands behind it.
                    if error.as_db_error().is_some() {
                        return Err(self.refused(call, &error));
                    }
                }
                match committed.and(receipt).as_deref().map(is_committed) {
                    Ok(true) if session.warnings() == warnings => return Ok(()),
                    // It stands here, and the wait for the standbys was cancelled.
                    Ok(true) => return self.writer.confirm(self.deadline).await.map_err(unknown),
                    Ok(false) => return Err(Fault::Broken(Cause::new("the transaction was rolled back"))),
                    Err(error) => describe(error),
                }
            }
            Err(_) => "the database does not answer".to_owned(),
        };
        self.writer.link = Link::Unconfirmed;
        tracing::warn!(%why, "a connection broke at COMMIT");
        let (stands, link) = outcome::resolve_outcome(&self.writer.connector, backend, &witness, &why).await;
        self.writer.link = link;
        stands
    }

    async fn confirm(mut self) -> Result<(), Fault> {
        if !self.has_standbys {
            return Ok(());
        }
        // Before the commit, on the same connection: nobody waits for rows while it waits for the standbys.
        self.roll_back();
        self.writer.confirm(self.deadline).await
    }
}

/// What was done stands here and perhaps nowhere else.
fn unknown(fault: Fault) -> Fault {
    let (Fault::Unavailable(cause) | Fault::OutcomeUnknown(cause) | Fault::Broken(cause)) = fault;
    Fault::OutcomeUnknown(cause)
}

/// Whether the receipt says so.
fn is_committed(rows: &[Row]) -> bool {
    rows.first().is_some_and(|row| row.try_get::<_, &str>(0).is_ok_and(|status| status == "committed"))
}

fn session(writer: &PostgresWriter) -> Result<&Session, Fault> {
    match &writer.link {
        Link::Ready(session) => Ok(session),
        Link::Lost | Link::Unconfirmed | Link::Confirming(_) => {
            Err(Fault::Unavailable(Cause::new("there is no connection")))
        }
    }
}

impl PostgresTx<'_> {
    /// Begins, locks the events of a batch by a statement, and loads what the batch concerns.
    async fn lock_and_load(&mut self, wanted: &BatchKeys<'_>, lock: Sql) -> Result<Loaded, Fault> {
        let calls = wanted.calls(lock);
        let begin = format!("{BEGIN}; SET LOCAL lock_timeout = {}", self.row_wait.as_millis());
        let session = session(self.writer)?;
        self.is_open = true;
        let open = session.client.batch_execute(&begin);
        let answers = timeout_at(self.deadline, join(open, session.pipeline(&calls))).await;
        let Ok((opened, answers)) = answers else { return Err(self.timed_out()) };
        opened.map_err(|error| self.failed(&error))?;
        let mut rows = Vec::with_capacity(answers.len());
        for answer in answers {
            rows.push(answer.map_err(|error| {
                let fault = self.failed(&error);
                // It waited for one row after the other.
                self.writer.blocked |=
                    lock == Sql::EventLock && error.code() == Some(&SqlState::QUERY_CANCELED);
                fault
            })?);
        }
        let [locked, clock, events, bookings, refunds, users, keys] = rows.as_slice() else {
            return Err(Fault::Broken(Cause::new("an answer is missing")));
        };
        self.read_clock_and_xid(clock).map_err(Fault::Broken)?;
        let mut loaded = decode(events, bookings, refunds, users, keys).map_err(Fault::Broken)?;
        if lock == Sql::EventLockSkipLocked {
            let locked = event_ids(locked).map_err(Fault::Broken)?;
            loaded.busy = loaded.events.keys().copied().filter(|event| !locked.contains(event)).collect();
        }
        Ok(loaded)
    }

    /// Undoes what is not committed: sent at once, and nobody waits for the answer.
    fn roll_back(&mut self) {
        if std::mem::take(&mut self.is_open)
            && let Ok(session) = session(self.writer)
        {
            let _ = session.client.batch_execute("ROLLBACK").now_or_never();
        }
    }

    /// The server takes too long. Nothing was committed; it undoes the rest once it sees us gone.
    fn timed_out(&mut self) -> Fault {
        self.is_open = false;
        self.writer.link = Link::Lost;
        Fault::Unavailable(Cause::new("the database does not answer"))
    }

    /// What an error before COMMIT means.
    fn failed(&mut self, error: &Error) -> Fault {
        let conflicts = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED];
        self.writer.conflicted = error.code().is_some_and(|code| conflicts.contains(code));
        self.writer.blocked = error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE);
        fault(error)
    }

    /// What an error of a write means: a division by the rows that are missing is a guard that missed.
    fn refused(&mut self, call: &Call<'_>, error: &Error) -> Fault {
        if error.code() != Some(&SqlState::DIVISION_BY_ZERO) {
            return self.failed(error);
        }
        // Somebody else has written the key since it was looked for. Their answer is there now.
        self.writer.conflicted = call.sql == Sql::IdempotencyUpsert;
        let text = call.sql.text();
        let first = text.lines().next().unwrap_or_default();
        Fault::Broken(Cause::new(format!("a guard missed: {first}")))
    }

    fn read_clock_and_xid(&mut self, rows: &[Row]) -> Result<(), Cause> {
        let row = rows.first().ok_or_else(|| Cause::new("the database has no clock"))?;
        let cells = RowReader::new(row, 0);
        (self.now, self.xid, self.has_standbys) = (cells.at(0)?, cells.get(1)?, cells.get(2)?);
        Ok(())
    }
}

/// What the commands of a batch concern, each once and in order.
#[derive(Default)]
struct BatchKeys<'b> {
    events: BTreeSet<EventId>,
    bookings: BTreeSet<BookingId>,
    payments: BTreeSet<(BookingId, String)>,
    users: BTreeSet<(EventId, &'b UserId)>,
    keys: BTreeSet<(&'b str, &'b str)>,
}

impl<'b> BatchKeys<'b> {
    fn by(batch: &'b [Submission]) -> Self {
        let mut wanted = Self::default();
        for Submission { command, idempotency } in batch {
            let event = command.event_id();
            wanted.events.insert(event);
            match command.booked_user() {
                Some(user) => {
                    wanted.users.insert((event, user));
                }
                None => wanted.bookings.extend(command.booking_id()),
            }
            let payment = command.captured();
            wanted.payments.extend(payment.map(|(id, transaction)| (id, transaction.as_str().to_owned())));
            wanted.keys.extend(idempotency.as_deref().map(|keep| (keep.scope.as_str(), keep.key.as_str())));
        }
        wanted
    }

    /// The statements that lock and load it. None of what is read depends on another's answer.
    fn calls(&self, lock: Sql) -> [Option<Call<'b>>; 7] {
        let uuid = |bytes: &[u8; 16]| Uuid::from_bytes(*bytes);
        let events: Vec<Uuid> = self.events.iter().map(|id| uuid(id.bytes())).collect();
        let bookings: Vec<Uuid> = self.bookings.iter().map(|id| uuid(id.bytes())).collect();
        let call = |sql: Sql, values: Vec<Value<'b>>| Some(Call { sql, values });
        let refunds = (!self.payments.is_empty()).then(|| {
            let bookings: Vec<Uuid> = self.payments.iter().map(|(id, _)| uuid(id.bytes())).collect();
            let payments: Vec<String> = self.payments.iter().map(|(_, payment)| payment.clone()).collect();
            vec![Box::new(bookings) as Value<'b>, Box::new(payments)]
        });
        let users = (!self.users.is_empty() || !bookings.is_empty()).then(|| {
            let of: Vec<Uuid> = self.users.iter().map(|(event, _)| uuid(event.bytes())).collect();
            let users: Vec<&'b str> = self.users.iter().map(|(_, user)| user.as_str()).collect();
            vec![Box::new(of) as Value<'b>, Box::new(users), Box::new(bookings.clone())]
        });
        let keys = (!self.keys.is_empty()).then(|| {
            let (scopes, keys): (Vec<&'b str>, Vec<&'b str>) = self.keys.iter().copied().unzip();
            vec![Box::new(scopes) as Value<'b>, Box::new(keys), Box::new(i64::from(IDEMPOTENCY_TTL_SECONDS))]
        });
        let bookings = (!bookings.is_empty()).then(|| vec![Box::new(bookings) as Value<'b>]);
        [
            call(lock, vec![Box::new(events.clone())]),
            call(Sql::TxInfo, Vec::new()),
            call(Sql::EventLoad, vec![Box::new(events)]),
            bookings.and_then(|values| call(Sql::BookingLoad, values)),
            refunds.and_then(|values| call(Sql::RefundLoad, values)),
            users.and_then(|values| call(Sql::UserLimitLoad, values)),
            keys.and_then(|values| call(Sql::IdempotencyLoad, values)),
        ]
    }
}

fn event_ids(rows: &[Row]) -> Result<BTreeSet<EventId>, Cause> {
    rows.iter().map(|row| Ok(EventId::from_bytes(RowReader::new(row, 0).id(0)?))).collect()
}

/// A row that cannot be read fails only the commands that need it.
fn decode(
    events: &[Row],
    bookings: &[Row],
    refunds: &[Row],
    users: &[Row],
    keys: &[Row],
) -> Result<Loaded, Cause> {
    let mut loaded = Loaded { events: read::events(events)?.into_iter().collect(), ..Loaded::default() };
    for row in bookings {
        let cells = RowReader::new(row, 0);
        let id = BookingId::from_bytes(cells.id(0)?);
        loaded.bookings.insert(id, read::booking(cells).map(Arc::new));
    }
    for row in refunds {
        let cells = RowReader::new(row, 0);
        let payment = (BookingId::from_bytes(cells.id(1)?), cells.parse(3)?);
        loaded.refunds.insert(payment, read::refund(cells));
    }
    for row in users {
        let cells = RowReader::new(row, 0);
        let event = EventId::from_bytes(cells.id(0)?);
        // Where nobody is counted any more, what was counted once says nothing.
        let counts = loaded.events.get(&event).and_then(|event| event.as_ref().ok());
        if counts.is_some_and(|event| event.details.max_tickets_per_user.is_some()) {
            loaded.user_tickets.insert((event, cells.parse(1)?), cells.number(2)?);
        }
    }
    for row in keys {
        let (key, kept) = read::kept(RowReader::new(row, 0))?;
        loaded.keys.insert(key, kept);
    }
    Ok(loaded)
}

/// The statement for a page of overdue holds. A user's are few: they come all at once.
fn overdue_call<'v>(wanted: &OverdueQuery<'v>) -> Call<'v> {
    let mut values: Vec<Value<'v>> =
        vec![Box::new(Uuid::from_bytes(*wanted.event.bytes())), Box::new(wanted.now.micros())];
    let ticket_type = match wanted.scope {
        HoldScope::Event => None,
        HoldScope::TicketType(id) => Some(hex(*id)),
        HoldScope::User(user) => {
            values.extend([Box::new(user.as_str()) as Value<'v>, Box::new(i64::from(USER_WINDOW))]);
            return Call { sql: Sql::BookingOverdueOfUser, values };
        }
    };
    let (after_time, after_id) = match &wanted.after {
        Some((at, id)) => (*at, Uuid::from_bytes(*id.bytes())),
        None => (i64::MIN, Uuid::nil()),
    };
    values.extend([
        Box::new(after_time) as Value<'v>,
        Box::new(after_id),
        Box::new(ticket_type),
        Box::new(i64::from(wanted.limit)),
    ]);
    Call { sql: Sql::BookingOverdue, values }
}

/// Overdue holds by deadline and id; all there are where no limit was set.
fn hold_page(rows: &[Row], limit: Option<usize>) -> Result<OverdueHoldPage, Cause> {
    /// The columns of a booking's deadline, and of its user's count after the booking's own.
    const HOLD_EXPIRES_AT: usize = 9;
    const USER_TICKETS: usize = 19;
    let mut holds = Vec::with_capacity(rows.len());
    for row in rows {
        let cells = RowReader::new(row, 0);
        let hold = read::booking(cells).and_then(|booking| {
            let counted: Option<i64> = cells.get(USER_TICKETS)?;
            let user_tickets = u32::try_from(counted.unwrap_or(0)).map_err(Cause::new)?;
            Ok(Hold { booking, user_tickets })
        });
        match hold {
            Ok(hold) => holds.push(hold),
            Err(cause) => tracing::error!(%cause, "an overdue hold cannot be read and is left alone"),
        }
    }
    holds.sort_unstable_by_key(|hold: &Hold| (hold.booking.hold_expires_at, hold.booking.id));
    let next = match rows.last().filter(|_| Some(rows.len()) == limit) {
        Some(row) => {
            let cells = RowReader::new(row, 0);
            Some((cells.get(HOLD_EXPIRES_AT)?, BookingId::from_bytes(cells.id(0)?)))
        }
        None => None,
    };
    Ok(OverdueHoldPage { holds, next })
}
