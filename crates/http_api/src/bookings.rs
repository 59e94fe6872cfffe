//! `/v1/bookings`.

use api::wire::{BookingView, CancelRequest, ConfirmRequest, CreateBooking, PageView, ValidationView};
use api::{App, Problem};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use domain::{BookingId, CapturedPayment, EventId, Invalid, Order, UserId};
use store::BookingList;

use crate::auth::{Identity, Role};
use crate::caller::Caller;
use crate::command_request::CommandRequest;
use crate::params::{Params, PathId};
use crate::payload::Json;
use crate::rejection::Rejection;
use crate::response::{respond, respond_rate_limited};

pub(crate) async fn create(State(app): State<App>, command: CommandRequest) -> Result<Response, Rejection> {
    let body = command.parse::<CreateBooking>()?;
    let selection = body.ticket_selection().map_err(|error| Problem::invalid(&[error]))?;
    let user = booked_user(command.caller.identity(), body.user_id.map(|user| user.0))?;
    let expected_total = body.expected_total.map(|money| money.0);
    let payment_method = body.payment_method.map(|text| text.0);
    let order = Order {
        event_id: body.event_id,
        booking_id: app.engine.booking_id(),
        user,
        selection,
        expected_total,
        payment_method,
        external_ref: body.external_ref.map(|text| text.0),
        metadata: body.metadata.map(|metadata| metadata.0).unwrap_or_default(),
    };
    let idempotency = command.idempotency(StatusCode::CREATED)?;
    let limited = app.engine.book(command.caller.into_engine_caller(), order, idempotency).await;
    Ok(respond_rate_limited(&app, limited, StatusCode::CREATED))
}

pub(crate) async fn confirm(
    State(app): State<App>,
    booking: PathId,
    command: CommandRequest,
) -> Result<Response, Rejection> {
    command.caller.require_service()?;
    let body = command.parse::<ConfirmRequest>()?;
    let amount = body.amount.map(|money| money.0);
    let payment = CapturedPayment { transaction: body.payment_transaction_id.0, amount };
    let idempotency = command.idempotency(StatusCode::OK)?;
    let output = app
        .engine
        .confirm(command.caller.into_engine_caller(), booking.id("booking")?, payment, idempotency)
        .await?;
    respond(&app, output, StatusCode::OK)
}

pub(crate) async fn cancel(
    State(app): State<App>,
    booking: PathId,
    command: CommandRequest,
) -> Result<Response, Rejection> {
    let body = command.parse_or_default::<CancelRequest>()?;
    let idempotency = command.idempotency(StatusCode::OK)?;
    let reason = body.reason.map(|text| text.0);
    // A malformed id counts against the rate limit like an unknown one, so it is replaced by an unused one.
    let unused_id = || BookingId::new(app.engine.now(), app.ids.random());
    let id = booking.id("booking").unwrap_or_else(|_: Problem| unused_id());
    let limited = app.engine.cancel(command.caller.into_engine_caller(), id, reason, idempotency).await;
    Ok(respond_rate_limited(&app, limited, StatusCode::OK))
}

pub(crate) async fn validate(
    State(app): State<App>,
    caller: Caller,
    booking: PathId,
    params: Params,
) -> Result<Response, Rejection> {
    caller.require_service()?;
    params.allow_only(&["eventId"])?;
    let event = params.required("eventId")?;
    // A scanned code may be anything: one that is not a booking id is not valid, and is no error.
    let booking = match booking.id::<BookingId>("booking") {
        Ok(id) => app.engine.confirmed_booking_for(&caller.reader(), id, event).await?,
        Err(Problem { .. }) => None,
    };
    let now = app.engine.now();
    let booking = booking.as_ref().map(|booking| BookingView::new(booking, now));
    Ok(Json(ValidationView { valid: booking.is_some(), booking }).into_response())
}

pub(crate) async fn show(
    State(app): State<App>,
    caller: Caller,
    booking: PathId,
) -> Result<Response, Rejection> {
    let booking = app.engine.booking(&caller.reader(), &caller.actor(), booking.id("booking")?).await?;
    Ok(Json(BookingView::new(&booking, app.engine.now())).into_response())
}

pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    params: Params,
) -> Result<Response, Rejection> {
    params.allow_only(&["limit", "after", "eventId", "userId", "status", "externalRef"])?;
    let (event, user) = (params.get::<EventId>("eventId")?, params.get::<UserId>("userId")?);
    let of_user = match caller.identity().role {
        Role::User => Some(booked_user(caller.identity(), user.clone())?),
        Role::Service | Role::Admin => user,
    };
    let after = params.get("after")?;
    let list = match (params.get("externalRef")?, of_user, event) {
        (Some(external_ref), user, event) => {
            BookingList::WithExternalRef { external_ref, user, event, after }
        }
        (None, Some(user), event) => BookingList::OfUser { user, event, after },
        (None, None, Some(event)) => BookingList::OfEvent { event, after },
        (None, None, None) => BookingList::All { after },
    };
    let (status, limit) = (params.get("status")?, params.limit()?);
    let page = app.engine.bookings(&caller.reader(), list, status, limit).await?;
    let now = app.engine.now();
    let data = page.rows.iter().map(|booking| BookingView::new(booking, now)).collect();
    Ok(Json(PageView { data, next_cursor: page.next }).into_response())
}

/// The user for whom to book or list: always the caller for role `user`, `named` for the other roles.
fn booked_user(identity: &Identity, named: Option<UserId>) -> Result<UserId, Problem> {
    match (identity.role, named) {
        (Role::User, None) => Ok(identity.user.clone()),
        (Role::User, Some(user)) if user == identity.user => Ok(user),
        (Role::User, Some(_)) => Err(Problem::forbidden("A user can book and list only for itself.")),
        (Role::Service | Role::Admin, Some(user)) => Ok(user),
        (Role::Service | Role::Admin, None) => {
            let detail = "must name the user of the booking";
            Err(Problem::invalid(&[Invalid::new("/userId", detail)]))
        }
    }
}
