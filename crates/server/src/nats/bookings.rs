//! The seven requests: parsed, asked of the engine, shown. The twin of `http/bookings.rs`.

use domain::{
    Booking, BookingId, BookingStatus, EventId, Invalid, Note, Refusal, TicketSelection, TransactionId,
    UserId,
};
use engine::{CapturedPayment, CommandOutput, Error, OrderRequest, Reader};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use store::BookingList;

use super::decimal;
use super::reply::{BookingReply, Reply};
use super::request::{NatsRequest, gateway};
use super::subject::Request;
use crate::http::App;
use crate::limit::{LIST_ROWS_MAX, NATS_LIST_REACH, NATS_LIST_ROWS_DEFAULT};
use crate::problem::Problem;
use crate::wire::{ParsedText, StatsView};

const CREATED: &str = "Booking created successfully";
const CANCELLED: &str = "Booking cancelled successfully";
const CONFIRMED: &str = "Payment confirmed successfully";

/// Answers a request.
pub(super) async fn answer(app: &App, asked: Request, call: &NatsRequest) -> Result<Reply, Problem> {
    match asked {
        Request::Create => create(app, call).await,
        Request::Cancel => cancel(app, call).await,
        Request::Get => get(app, call).await,
        Request::List => list(app, call).await,
        Request::Validate => validate(app, call).await,
        Request::ConfirmPayment => confirm(app, call).await,
        Request::Stats => stats(app, call).await,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Create {
    event_id: EventId,
    user_id: ParsedText<UserId>,
    ticket_quantity: u32,
    total_amount: Option<Box<RawValue>>,
    payment_method: Option<ParsedText<Note>>,
}

async fn create(app: &App, call: &NatsRequest) -> Result<Reply, Problem> {
    let body: Create = call.parse()?;
    let (event_id, user) = (body.event_id, body.user_id.0);
    if body.ticket_quantity == 0 {
        return Err(Problem::invalid(&[Invalid::new("/ticketQuantity", "must be at least 1")]));
    }
    let total = body.total_amount.filter(|total| total.get() != "null");
    let expected_total = match total {
        Some(total) => expected(app, event_id, total.get()).await?,
        None => None,
    };
    let caller = call.user(&user);
    let selection = TicketSelection::Quantity(body.ticket_quantity);
    let payment_method = body.payment_method.map(|text| text.0);
    let order = OrderRequest { event_id, user, selection: selection, expected_total, payment_method };
    let attempt = app.engine.book(caller, order, call.keep("create", CREATED)).await;
    show(app, call, attempt.outcome?, CREATED)
}

/// A total in the currency of the event; nothing where there is no such event, which the engine says.
async fn expected(app: &App, event: EventId, total: &str) -> Result<Option<domain::Money>, Problem> {
    let currency = match app.engine.currency(event).await {
        Ok(currency) => currency,
        Err(Error::Refused(refusal)) if matches!(*refusal, Refusal::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let money = decimal::read(total, currency);
    money.map(Some).map_err(|wrong| Problem::invalid(&[Invalid::new("/totalAmount", wrong)]))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cancel {
    booking_id: String,
    user_id: ParsedText<UserId>,
    reason: Option<ParsedText<Note>>,
}

/// In the name of the user, whose limit and cut-off apply and whose booking it must be.
async fn cancel(app: &App, call: &NatsRequest) -> Result<Reply, Problem> {
    let body: Cancel = call.parse()?;
    // An id that cannot be read counts as an attempt, like one that nobody has.
    let id = body.booking_id.parse().unwrap_or_else(|_| BookingId::new(app.engine.now(), app.ids.random()));
    let reason = body.reason.map(|text| text.0);
    let keep = call.keep(&format!("cancel {}", body.booking_id), CANCELLED);
    let attempt = app.engine.cancel(call.user(&body.user_id.0), id, reason, keep).await;
    show(app, call, attempt.outcome?, CANCELLED)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Confirm {
    booking_id: String,
    payment_transaction_id: ParsedText<TransactionId>,
}

async fn confirm(app: &App, call: &NatsRequest) -> Result<Reply, Problem> {
    let body: Confirm = call.parse()?;
    let payment = CapturedPayment { transaction: body.payment_transaction_id.0, amount: None };
    let keep = call.keep(&format!("confirm {}", body.booking_id), CONFIRMED);
    let given = app.engine.confirm(call.service(), booking_id(&body.booking_id)?, payment, keep).await?;
    show(app, call, given, CONFIRMED)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Get {
    booking_id: String,
    user_id: Option<ParsedText<UserId>>,
}

async fn get(app: &App, call: &NatsRequest) -> Result<Reply, Problem> {
    let body: Get = call.parse()?;
    let asker = match body.user_id {
        Some(ParsedText(user)) => call.user(&user),
        None => call.service(),
    };
    let booking = app.engine.booking(&reader(), &asker.actor, booking_id(&body.booking_id)?).await?;
    let data = BookingReply::new(&booking, app.engine.now());
    Ok(Reply::success(data, call.message_id(), "Booking fetched successfully"))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Validate {
    booking_id: String,
    event_id: EventId,
}

async fn validate(app: &App, call: &NatsRequest) -> Result<Reply, Problem> {
    #[derive(Serialize)]
    struct Validation<'a> {
        valid: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        booking: Option<BookingReply<'a>>,
    }
    let body: Validate = call.parse()?;
    // What is shown at a door may be anything; what names no booking admits nobody.
    let booking = match body.booking_id.parse() {
        Ok(id) => app.engine.confirmed_booking_for(&reader(), id, body.event_id).await?,
        Err(_) => None,
    };
    let now = app.engine.now();
    let shown = booking.as_ref().map(|booking| BookingReply::new(booking, now));
    let data = Validation { valid: shown.is_some(), booking: shown };
    let more = json!({"messageId": call.message_id(), "timestamp": now});
    Ok(Reply::success_flattened(&data, call.message_id(), "Booking validated successfully", &more))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    user_id: Option<ParsedText<UserId>>,
    event_id: Option<EventId>,
    status: Option<ParsedText<BookingStatus>>,
    page: Option<u32>,
    limit: Option<u32>,
}

async fn list(app: &App, call: &NatsRequest) -> Result<Reply, Problem> {
    #[derive(Serialize)]
    struct Bookings<'a> {
        bookings: Vec<BookingReply<'a>>,
    }
    let body: List = call.parse()?;
    let (page, limit) = (body.page.unwrap_or(1), body.limit.unwrap_or(NATS_LIST_ROWS_DEFAULT));
    let wrong = |pointer: &str, detail: String| Err(Problem::invalid(&[Invalid::new(pointer, detail)]));
    if !(1..=LIST_ROWS_MAX).contains(&limit) {
        return wrong("/limit", format!("must be a number from 1 to {LIST_ROWS_MAX}"));
    }
    if page == 0 || page.saturating_mul(limit) > NATS_LIST_REACH {
        return wrong("/page", format!("must be at least 1, and end within {NATS_LIST_REACH} bookings"));
    }
    let (user, event) = (body.user_id.map(|user| user.0), body.event_id);
    let Some(filter) = ListFilter::new(user, event) else {
        return wrong("", "must have userId or eventId".to_owned());
    };
    let window = PageWindow { skip: (page - 1) * limit, limit };
    let (rows, total) = filter.page(app, body.status.map(|status| status.0), window).await?;
    let now = app.engine.now();
    let data = Bookings { bookings: rows.iter().map(|booking| BookingReply::new(booking, now)).collect() };
    let pages = total.div_ceil(u64::from(limit));
    let more = json!({"pagination": {"page": page, "limit": limit, "total": total, "pages": pages}});
    Ok(Reply::success_flattened(&data, call.message_id(), "Bookings fetched successfully", &more))
}

/// ListFilter bookings are listed.
enum ListFilter {
    /// A user's, at one event where it is given.
    User(UserId, Option<EventId>),
    /// An event's.
    Event(EventId),
}

/// Which of them are shown.
#[derive(Clone, Copy)]
struct PageWindow {
    skip: u32,
    limit: u32,
}

impl ListFilter {
    fn new(user: Option<UserId>, event: Option<EventId>) -> Option<Self> {
        match (user, event) {
            (Some(user), event) => Some(Self::User(user, event)),
            (None, Some(event)) => Some(Self::Event(event)),
            (None, None) => None,
        }
    }

    /// The bookings in the window, newest first, and how many there are in all: those of an event by its
    /// counters, those of a user counted up to [`NATS_LIST_REACH`].
    async fn page(
        &self,
        app: &App,
        status: Option<BookingStatus>,
        window: PageWindow,
    ) -> Result<(Vec<Booking>, u64), Problem> {
        let counted = match self {
            Self::Event(event) => Some(self.count_by_status(app, *event, status).await?),
            Self::User(..) => None,
        };
        let reach = if counted.is_some() { window.skip + window.limit } else { NATS_LIST_REACH };
        let (skip, limit) = (window.skip, window.limit);
        let (rows, seen) =
            app.engine.bookings_at(&reader(), (self.list(), status), (skip, limit), reach).await?;
        Ok((rows, counted.unwrap_or(u64::from(seen))))
    }

    async fn count_by_status(
        &self,
        app: &App,
        event: EventId,
        status: Option<BookingStatus>,
    ) -> Result<u64, Problem> {
        let tallies = app.engine.event(&reader(), event).await?.inventory.tallies;
        Ok(match status {
            None => tallies.pending + tallies.confirmed + tallies.cancelled + tallies.expired,
            Some(BookingStatus::Pending) => tallies.pending,
            Some(BookingStatus::Confirmed) => tallies.confirmed,
            Some(BookingStatus::Cancelled) => tallies.cancelled,
            Some(BookingStatus::Expired) => tallies.expired,
        })
    }

    fn list(&self) -> BookingList {
        match self {
            Self::User(user, event) => BookingList::OfUser { user: user.clone(), event: *event, after: None },
            Self::Event(event) => BookingList::OfEvent { event: *event, after: None },
        }
    }
}

/// Who reads over NATS: all senders are one trusted service.
fn reader() -> Reader {
    Reader::Service(gateway())
}

async fn stats(app: &App, call: &NatsRequest) -> Result<Reply, Problem> {
    #[derive(Default, Deserialize)]
    struct Nothing {}
    let Nothing {} = call.parse_or_default()?;
    let stats = app.engine.stats(&reader()).await?;
    let message = "Booking statistics fetched successfully";
    Ok(Reply::success(StatsView::from(&stats), call.message_id(), message))
}

/// What became of a command.
fn show(
    app: &App,
    call: &NatsRequest,
    given: CommandOutput,
    message: &'static str,
) -> Result<Reply, Problem> {
    match given {
        CommandOutput::Fresh(answer) => Ok(Reply::new(&answer, app.engine.now(), call.message_id(), message)),
        CommandOutput::Stored { answer, .. } => Reply::kept(&answer),
    }
}

fn booking_id(text: &str) -> Result<BookingId, Problem> {
    text.parse().map_err(|_| Problem::not_found("booking"))
}
