//! The handlers of the seven requests. The counterpart over HTTP is `http_api/src/bookings.rs`.

use api::limit::LIST_ROWS_MAX;
use api::wire::{MetadataField, ParsedText, StatsView};
use api::{App, Problem};
use domain::{
    Booking, BookingId, BookingStatus, CapturedPayment, EventId, ExternalRef, Invalid, Note, Order, Refusal,
    TicketSelection, TransactionId, UserId,
};
use engine::{CommandOutput, Error, OffsetPage, Reader};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use store::BookingList;

use crate::decimal;
use crate::limit::{LIST_ROWS_COUNTED_MAX, LIST_ROWS_DEFAULT};
use crate::reply::{BookingReply, Reply};
use crate::request::{NatsRequest, gateway};
use crate::subject::Request;

const CREATED: &str = "Booking created successfully";
const CANCELLED: &str = "Booking cancelled successfully";
const CONFIRMED: &str = "Payment confirmed successfully";

/// Handles a request.
pub(crate) async fn handle(app: &App, kind: Request, request: &NatsRequest) -> Result<Reply, Problem> {
    match kind {
        Request::Create => create(app, request).await,
        Request::Cancel => cancel(app, request).await,
        Request::Get => get(app, request).await,
        Request::List => list(app, request).await,
        Request::Validate => validate(app, request).await,
        Request::ConfirmPayment => confirm(app, request).await,
        Request::Stats => stats(app, request).await,
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
    external_ref: Option<ParsedText<ExternalRef>>,
    metadata: Option<MetadataField>,
}

async fn create(app: &App, request: &NatsRequest) -> Result<Reply, Problem> {
    let body: Create = request.parse()?;
    let (event_id, user) = (body.event_id, body.user_id.0);
    if body.ticket_quantity == 0 {
        return Err(Problem::invalid(&[Invalid::new("/ticketQuantity", "must be at least 1")]));
    }
    let total = body.total_amount.filter(|total| total.get() != "null");
    let expected_total = match total {
        Some(total) => parse_total(app, event_id, total.get()).await?,
        None => None,
    };
    let caller = request.user_caller(&user);
    let selection = TicketSelection::Quantity(body.ticket_quantity);
    let payment_method = body.payment_method.map(|text| text.0);
    let booking_id = app.engine.booking_id();
    let metadata = body.metadata.map(|metadata| metadata.0).unwrap_or_default();
    let external_ref = body.external_ref.map(|text| text.0);
    let order = Order {
        event_id,
        booking_id,
        user,
        selection,
        expected_total,
        payment_method,
        external_ref,
        metadata,
    };
    let result = app.engine.book(caller, order, request.idempotency("create", CREATED)).await;
    reply(app, request, result.outcome?, CREATED)
}

/// Parses a total in the currency of the event. `None` if there is no such event: the engine then refuses the
/// order.
async fn parse_total(app: &App, event: EventId, total: &str) -> Result<Option<domain::Money>, Problem> {
    let currency = match app.engine.currency(event).await {
        Ok(currency) => currency,
        Err(Error::Refused(refusal)) if matches!(*refusal, Refusal::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let money = decimal::read(total, currency);
    money.map(Some).map_err(|detail| Problem::invalid(&[Invalid::new("/totalAmount", detail)]))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cancel {
    booking_id: String,
    user_id: ParsedText<UserId>,
    reason: Option<ParsedText<Note>>,
}

/// Cancels on behalf of the user, so that the limit and cut-off for users apply and the booking must be
/// theirs.
async fn cancel(app: &App, request: &NatsRequest) -> Result<Reply, Problem> {
    let body: Cancel = request.parse()?;
    // An id that cannot be parsed counts as an attempt, as an unknown id does.
    let id = body.booking_id.parse().unwrap_or_else(|_| BookingId::new(app.engine.now(), app.ids.random()));
    let reason = body.reason.map(|text| text.0);
    let idempotency = request.idempotency(&format!("cancel {}", body.booking_id), CANCELLED);
    let result = app.engine.cancel(request.user_caller(&body.user_id.0), id, reason, idempotency).await;
    reply(app, request, result.outcome?, CANCELLED)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Confirm {
    booking_id: String,
    payment_transaction_id: ParsedText<TransactionId>,
}

async fn confirm(app: &App, request: &NatsRequest) -> Result<Reply, Problem> {
    let body: Confirm = request.parse()?;
    let payment = CapturedPayment { transaction: body.payment_transaction_id.0, amount: None };
    let idempotency = request.idempotency(&format!("confirm {}", body.booking_id), CONFIRMED);
    let id = parse_booking_id(&body.booking_id)?;
    let output = app.engine.confirm(request.service_caller(), id, payment, idempotency).await?;
    reply(app, request, output, CONFIRMED)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Get {
    booking_id: String,
    user_id: Option<ParsedText<UserId>>,
}

async fn get(app: &App, request: &NatsRequest) -> Result<Reply, Problem> {
    let body: Get = request.parse()?;
    let caller = match body.user_id {
        Some(ParsedText(user)) => request.user_caller(&user),
        None => request.service_caller(),
    };
    let booking = app.engine.booking(&reader(), &caller.actor, parse_booking_id(&body.booking_id)?).await?;
    let data = BookingReply::new(&booking, app.engine.now());
    Ok(Reply::success(data, request.message_id(), "Booking fetched successfully"))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Validate {
    booking_id: String,
    event_id: EventId,
}

async fn validate(app: &App, request: &NatsRequest) -> Result<Reply, Problem> {
    #[derive(Serialize)]
    struct Validation<'a> {
        valid: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        booking: Option<BookingReply<'a>>,
    }
    let body: Validate = request.parse()?;
    // The id is presented at the entrance and may be any text. One that cannot be parsed names no booking.
    let booking = match body.booking_id.parse() {
        Ok(id) => app.engine.confirmed_booking_for(&reader(), id, body.event_id).await?,
        Err(_) => None,
    };
    let now = app.engine.now();
    let booking = booking.as_ref().map(|booking| BookingReply::new(booking, now));
    let data = Validation { valid: booking.is_some(), booking };
    let more = json!({"messageId": request.message_id(), "timestamp": now});
    Ok(Reply::success_flattened(&data, request.message_id(), "Booking validated successfully", &more))
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

async fn list(app: &App, request: &NatsRequest) -> Result<Reply, Problem> {
    #[derive(Serialize)]
    struct Bookings<'a> {
        bookings: Vec<BookingReply<'a>>,
    }
    let body: List = request.parse()?;
    let (page, limit) = (body.page.unwrap_or(1), body.limit.unwrap_or(LIST_ROWS_DEFAULT));
    let invalid = |pointer: &str, detail: String| Err(Problem::invalid(&[Invalid::new(pointer, detail)]));
    if !(1..=LIST_ROWS_MAX).contains(&limit) {
        return invalid("/limit", format!("must be a number from 1 to {LIST_ROWS_MAX}"));
    }
    if page == 0 || page.saturating_mul(limit) > LIST_ROWS_COUNTED_MAX {
        let detail = format!("must be at least 1, and end within {LIST_ROWS_COUNTED_MAX} bookings");
        return invalid("/page", detail);
    }
    let (user, event) = (body.user_id.map(|user| user.0), body.event_id);
    let Some(filter) = ListFilter::new(user, event) else {
        return invalid("", "must have userId or eventId".to_owned());
    };
    let window = PageWindow { skip: (page - 1) * limit, limit };
    let (rows, total) = filter.page(app, body.status.map(|status| status.0), window).await?;
    let now = app.engine.now();
    let data = Bookings { bookings: rows.iter().map(|booking| BookingReply::new(booking, now)).collect() };
    let pages = total.div_ceil(u64::from(limit));
    let more = json!({"pagination": {"page": page, "limit": limit, "total": total, "pages": pages}});
    Ok(Reply::success_flattened(&data, request.message_id(), "Bookings fetched successfully", &more))
}

/// The bookings to list.
enum ListFilter {
    /// Bookings of a user, for one event if it is given.
    User(UserId, Option<EventId>),
    /// Bookings of an event.
    Event(EventId),
}

/// A page, as an offset and a size.
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

    /// Returns the bookings in the window, newest first, and the total number of bookings: for an event from
    /// its counters, for a user counted up to [`LIST_ROWS_COUNTED_MAX`].
    async fn page(
        &self,
        app: &App,
        status: Option<BookingStatus>,
        window: PageWindow,
    ) -> Result<(Vec<Booking>, u64), Problem> {
        let total = match self {
            Self::Event(event) => Some(self.count_by_status(app, *event, status).await?),
            Self::User(..) => None,
        };
        let reach = if total.is_some() { window.skip + window.limit } else { LIST_ROWS_COUNTED_MAX };
        let page = OffsetPage { skip: window.skip, limit: window.limit, count_max: reach };
        let (rows, counted) = app.engine.bookings_at(&reader(), self.list(), status, page).await?;
        Ok((rows, total.unwrap_or(u64::from(counted))))
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

/// The reader for all requests: the clients of NATS are one trusted service.
fn reader() -> Reader {
    Reader::Service(gateway())
}

async fn stats(app: &App, request: &NatsRequest) -> Result<Reply, Problem> {
    #[derive(Default, Deserialize)]
    struct Empty {}
    let Empty {} = request.parse_or_default()?;
    let stats = app.engine.stats(&reader()).await?;
    let message = "Booking statistics fetched successfully";
    Ok(Reply::success(StatsView::from(&stats), request.message_id(), message))
}

/// Returns the reply for the output of a command.
fn reply(
    app: &App,
    request: &NatsRequest,
    output: CommandOutput,
    message: &'static str,
) -> Result<Reply, Problem> {
    match output {
        CommandOutput::Fresh(answer) => {
            Ok(Reply::new(&answer, app.engine.now(), request.message_id(), message))
        }
        CommandOutput::Stored { response, .. } => Reply::from_stored(&response),
    }
}

fn parse_booking_id(text: &str) -> Result<BookingId, Problem> {
    text.parse().map_err(|_| Problem::not_found("booking"))
}
