//! One write transaction on PostgreSQL: two round trips, one to lock and load, one to write and commit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use domain::{BookingId, EventId, Scope, Timestamp, UserId};
use futures_util::FutureExt as _;
use futures_util::future::{join, join3};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::outcome::{self, Witness};
use super::read::{self, Cells};
use super::session::{Call, Connector, Role, Session, Value, describe, fault};
use super::sql::Sql;
use super::{TRANSACTION_MAX, write};
use crate::execute::Writer;
use crate::fold::{Changes, Hold, HoldPage, Loaded, Overdue, Tx};
use crate::row::hex;
use crate::{Cause, Fault, KEY_KEPT_SECONDS, Submission};

/// Pause before a batch is tried again that met somebody else's.
const REPEAT_PAUSE: Duration = Duration::from_millis(3);

/// What commits whatever was done since the last one.
const COMMIT: &str = "COMMIT";

/// The one connection that carries out batches, made again whenever it is lost.
pub(super) struct PostgresWriter {
    connector: Arc<Connector>,
    session: Option<Session>,
    /// Whether the last transaction failed only because of somebody else's.
    conflicted: bool,
}

pub(super) struct PostgresTx<'w> {
    writer: &'w mut PostgresWriter,
    /// When the asker has waited long enough: whatever has not been sent by then is not done.
    deadline: Instant,
    /// Begun, and neither committed nor rolled back.
    is_open: bool,
    now: Timestamp,
    /// The transaction as PostgreSQL names it.
    xid: String,
}

impl PostgresWriter {
    pub(super) fn new(connector: Arc<Connector>) -> Self {
        Self { connector, session: None, conflicted: false }
    }

    /// Connects where no connection is known to stand.
    pub(super) async fn connect(&mut self) -> Result<(), Fault> {
        if self.session.as_ref().is_none_or(Session::is_closed) {
            self.session = None;
            self.session = Some(self.connector.open(Role::Desk).await?);
        }
        Ok(())
    }
}

impl Writer for PostgresWriter {
    type Tx<'w> = PostgresTx<'w>;

    async fn begin(&mut self) -> Result<PostgresTx<'_>, Fault> {
        if std::mem::take(&mut self.conflicted) {
            // Long enough for whoever was met to finish; not the same for every process.
            sleep(REPEAT_PAUSE.saturating_mul(1 + std::process::id() % 5)).await;
        }
        self.connect().await?;
        let deadline = Instant::now() + TRANSACTION_MAX;
        let now = Timestamp::from_micros(0).map_err(|error| Fault::Broken(Cause::new(error)))?;
        Ok(PostgresTx { writer: self, deadline, is_open: false, now, xid: String::new() })
    }

    fn has_conflicted(&self) -> bool {
        self.conflicted
    }
}

/// What is not committed is undone, also on the way out of an error: the word is sent at once, and nobody
/// waits for the answer.
impl Drop for PostgresTx<'_> {
    fn drop(&mut self) {
        if self.is_open
            && let Some(session) = &self.writer.session
        {
            let _ = session.client.batch_execute("ROLLBACK").now_or_never();
        }
    }
}

impl Tx for PostgresTx<'_> {
    async fn load(&mut self, batch: &[Submission]) -> Result<Loaded, Fault> {
        let calls = Wanted::by(batch).calls();
        let session = session(self.writer)?;
        self.is_open = true;
        let open = session.client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE");
        let answers = timeout_at(self.deadline, join(open, session.pipeline(&calls))).await;
        let Ok((opened, answers)) = answers else { return Err(self.gave_up()) };
        opened.map_err(|error| self.failed(&error))?;
        let mut rows = Vec::with_capacity(answers.len());
        for answer in answers {
            rows.push(answer.map_err(|error| self.failed(&error))?);
        }
        let [_locked, clock, events, bookings, refunds, users, keys] = rows.as_slice() else {
            return Err(Fault::Broken(Cause::new("an answer is missing")));
        };
        self.take_clock(clock).map_err(Fault::Broken)?;
        decode(events, bookings, refunds, users, keys).map_err(Fault::Broken)
    }

    async fn now(&mut self) -> Result<Timestamp, Fault> {
        Ok(self.now)
    }

    async fn overdue(&mut self, wanted: &Overdue<'_>) -> Result<HoldPage, Fault> {
        let (ticket_type, user) = match wanted.scope {
            Scope::Event => (None, None),
            Scope::TicketType(id) => (Some(hex(*id)), None),
            Scope::User(user) => (None, Some(user.as_str())),
        };
        let (after_time, after_id) = match &wanted.after {
            Some((at, id)) => (at.micros(), Uuid::from_bytes(*id.bytes())),
            None => (i64::MIN, Uuid::nil()),
        };
        let values: Vec<Value<'_>> = vec![
            Box::new(Uuid::from_bytes(*wanted.event.bytes())),
            Box::new(wanted.now.micros()),
            Box::new(after_time),
            Box::new(after_id),
            Box::new(ticket_type),
            Box::new(user),
            Box::new(i64::from(wanted.limit)),
        ];
        let call = Call { sql: Sql::BookingOverdue, values };
        let answer = timeout_at(self.deadline, session(self.writer)?.call(&call)).await;
        let Ok(rows) = answer else { return Err(self.gave_up()) };
        let rows = rows.map_err(|error| self.failed(&error))?;
        hold_page(&rows, wanted.limit as usize).map_err(Fault::Broken)
    }

    async fn commit(mut self, changes: Changes) -> Result<(), Fault> {
        let writes: Vec<_> = write::calls(&changes).into_iter().map(Some).collect();
        let witness = Witness::of(&changes);
        let receipt = Call { sql: Sql::CommitReceipt, values: vec![Box::new(self.xid.clone())] };
        let session = session(self.writer)?;
        let backend = session.backend;
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
                    Ok(true) => return Ok(()),
                    Ok(false) => return Err(Fault::Broken(Cause::new("the transaction was rolled back"))),
                    Err(error) => describe(error),
                }
            }
            Err(_) => "the database does not answer".to_owned(),
        };
        self.writer.session = None;
        tracing::warn!(%why, "a connection broke at COMMIT");
        let (stands, session) = outcome::find_out(&self.writer.connector, backend, &witness, &why).await;
        self.writer.session = session;
        stands
    }
}

/// Whether the receipt says so.
fn is_committed(rows: &[Row]) -> bool {
    rows.first().is_some_and(|row| row.try_get::<_, &str>(0).is_ok_and(|status| status == "committed"))
}

fn session(writer: &PostgresWriter) -> Result<&Session, Fault> {
    writer.session.as_ref().ok_or_else(|| Fault::Unavailable(Cause::new("there is no connection")))
}

impl PostgresTx<'_> {
    /// The server takes too long. Nothing was committed; it undoes the rest once it sees us gone.
    fn gave_up(&mut self) -> Fault {
        self.is_open = false;
        self.writer.session = None;
        Fault::Unavailable(Cause::new("the database does not answer"))
    }

    /// What an error before COMMIT means.
    fn failed(&mut self, error: &Error) -> Fault {
        let conflicts = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED];
        self.writer.conflicted = error.code().is_some_and(|code| conflicts.contains(code));
        fault(error)
    }

    /// What an error of a write means: a division by the rows that are missing is a guard that missed.
    fn refused(&mut self, call: &Call<'_>, error: &Error) -> Fault {
        if error.code() != Some(&SqlState::DIVISION_BY_ZERO) {
            return self.failed(error);
        }
        // Somebody else has written the key since it was looked for. Their answer is there now.
        self.writer.conflicted = call.sql == Sql::KeyWrite;
        let text = call.sql.text();
        let first = text.lines().next().unwrap_or_default();
        Fault::Broken(Cause::new(format!("a guard missed: {first}")))
    }

    fn take_clock(&mut self, rows: &[Row]) -> Result<(), Cause> {
        let row = rows.first().ok_or_else(|| Cause::new("the database has no clock"))?;
        let cells = Cells::new(row, 0);
        (self.now, self.xid) = (cells.at(0)?, cells.get(1)?);
        Ok(())
    }
}

/// What the commands of a batch concern, each once and in order.
#[derive(Default)]
struct Wanted<'b> {
    events: BTreeSet<EventId>,
    bookings: BTreeSet<BookingId>,
    payments: BTreeSet<(BookingId, String)>,
    users: BTreeSet<(EventId, &'b UserId)>,
    keys: BTreeSet<(&'b str, &'b str)>,
}

impl<'b> Wanted<'b> {
    fn by(batch: &'b [Submission]) -> Self {
        let mut wanted = Self::default();
        for Submission { command, keep } in batch {
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
            wanted.keys.extend(keep.as_deref().map(|keep| (keep.scope.as_str(), keep.key.as_str())));
        }
        wanted
    }

    /// The statements that lock and load it. None of what is read depends on another's answer.
    fn calls(&self) -> [Option<Call<'b>>; 7] {
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
            vec![Box::new(scopes) as Value<'b>, Box::new(keys), Box::new(i64::from(KEY_KEPT_SECONDS))]
        });
        let bookings = (!bookings.is_empty()).then(|| vec![Box::new(bookings) as Value<'b>]);
        [
            call(Sql::EventLock, vec![Box::new(events.clone())]),
            call(Sql::TxBegin, Vec::new()),
            call(Sql::EventLoad, vec![Box::new(events)]),
            bookings.and_then(|values| call(Sql::BookingLoad, values)),
            refunds.and_then(|values| call(Sql::RefundLoad, values)),
            users.and_then(|values| call(Sql::UserLoad, values)),
            keys.and_then(|values| call(Sql::KeyLoad, values)),
        ]
    }
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
        let cells = Cells::new(row, 0);
        let id = BookingId::from_bytes(cells.id(0)?);
        loaded.bookings.insert(id, read::booking(cells).map(Arc::new));
    }
    for row in refunds {
        let cells = Cells::new(row, 0);
        let payment = (BookingId::from_bytes(cells.id(1)?), cells.parse(3)?);
        loaded.refunds.insert(payment, read::refund(cells));
    }
    for row in users {
        let cells = Cells::new(row, 0);
        let event = EventId::from_bytes(cells.id(0)?);
        // Where nobody is counted any more, what was counted once says nothing.
        let counts = loaded.events.get(&event).and_then(|event| event.as_ref().ok());
        if counts.is_some_and(|event| event.about.max_tickets_per_user.is_some()) {
            loaded.user_tickets.insert((event, cells.parse(1)?), cells.number(2)?);
        }
    }
    for row in keys {
        let (key, kept) = read::kept(Cells::new(row, 0))?;
        loaded.keys.insert(key, kept);
    }
    Ok(loaded)
}

fn hold_page(rows: &[Row], limit: usize) -> Result<HoldPage, Cause> {
    /// The columns of a booking's deadline, and of its user's count after the booking's own.
    const HOLD_EXPIRES_AT: usize = 9;
    const USER_TICKETS: usize = 19;
    let mut holds = Vec::with_capacity(rows.len());
    for row in rows {
        let cells = Cells::new(row, 0);
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
    let next = match rows.last().filter(|_| rows.len() == limit) {
        Some(row) => {
            let cells = Cells::new(row, 0);
            Some((cells.at(HOLD_EXPIRES_AT)?, BookingId::from_bytes(cells.id(0)?)))
        }
        None => None,
    };
    Ok(HoldPage { holds, next })
}
