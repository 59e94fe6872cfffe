//! `/v1/bookings`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use domain::{BookingId, EventId, Invalid, UserId};
use engine::{CapturedPayment, OrderRequest};
use store::BookingList;

use super::App;
use super::caller::Caller;
use super::command_request::CommandRequest;
use super::params::{Params, PathId};
use super::payload::Json;
use super::response::{respond as show_answer, respond_rate_limited};
use crate::auth::{Identity, Role};
use crate::problem::Problem;
use crate::wire::{BookingView, CancelRequest, ConfirmRequest, CreateBooking, PageView, ValidationView};

pub(super) async fn create(State(app): State<App>, post: CommandRequest) -> Result<Response, Problem> {
    let body = post.parse::<CreateBooking>()?;
    let ask = body.ticket_selection().map_err(|wrong| Problem::invalid(&[wrong]))?;
    let user = booked_user(post.caller.identity(), body.user_id.map(|user| user.0))?;
    let expected_total = body.expected_total.map(|money| money.0);
    let payment_method = body.payment_method.map(|text| text.0);
    let order =
        OrderRequest { event_id: body.event_id, user, selection: ask, expected_total, payment_method };
    let keep = post.idempotency(StatusCode::CREATED)?;
    let attempt = app.engine.book(post.caller.into_engine_caller(), order, keep).await;
    Ok(respond_rate_limited(&app, attempt, StatusCode::CREATED))
}

pub(super) async fn confirm(
    State(app): State<App>,
    booking: PathId,
    post: CommandRequest,
) -> Result<Response, Problem> {
    post.caller.require_service()?;
    let body = post.parse::<ConfirmRequest>()?;
    let (transaction, amount) = (body.payment_transaction_id.0, body.amount.map(|money| money.0));
    let payment = CapturedPayment { transaction, amount };
    let keep = post.idempotency(StatusCode::OK)?;
    let given =
        app.engine.confirm(post.caller.into_engine_caller(), booking.id("booking")?, payment, keep).await?;
    show_answer(&app, given, StatusCode::OK)
}

pub(super) async fn cancel(
    State(app): State<App>,
    booking: PathId,
    post: CommandRequest,
) -> Result<Response, Problem> {
    let body = post.parse_or_default::<CancelRequest>()?;
    let keep = post.idempotency(StatusCode::OK)?;
    let reason = body.reason.map(|text| text.0);
    // An id that cannot be read counts as an attempt, like one that nobody has.
    let nobodys = || BookingId::new(app.engine.now(), app.ids.random());
    let id = booking.id("booking").unwrap_or_else(|_: Problem| nobodys());
    let attempt = app.engine.cancel(post.caller.into_engine_caller(), id, reason, keep).await;
    Ok(respond_rate_limited(&app, attempt, StatusCode::OK))
}

pub(super) async fn validate(
    State(app): State<App>,
    caller: Caller,
    booking: PathId,
    params: Params,
) -> Result<Response, Problem> {
    caller.require_service()?;
    params.allow_only(&["eventId"])?;
    let event = params.required("eventId")?;
    // What is shown at a door may be anything; what names no booking admits nobody.
    let booking = match booking.id::<BookingId>("booking") {
        Ok(id) => app.engine.confirmed_booking_for(&caller.reader(), id, event).await?,
        Err(Problem { .. }) => None,
    };
    let now = app.engine.now();
    let booking = booking.as_ref().map(|booking| BookingView::new(booking, now));
    Ok(Json(ValidationView { valid: booking.is_some(), booking }).into_response())
}

pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    booking: PathId,
) -> Result<Response, Problem> {
    let booking = app.engine.booking(&caller.reader(), &caller.actor(), booking.id("booking")?).await?;
    Ok(Json(BookingView::new(&booking, app.engine.now())).into_response())
}

pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    params: Params,
) -> Result<Response, Problem> {
    params.allow_only(&["limit", "after", "eventId", "userId", "status"])?;
    let (event, user) = (params.get::<EventId>("eventId")?, params.get::<UserId>("userId")?);
    let own = match caller.identity().role {
        Role::User => Some(booked_user(caller.identity(), user.clone())?),
        Role::Service | Role::Admin => user,
    };
    let list = match (own, event) {
        (Some(user), event) => BookingList::OfUser { user, event, after: params.get("after")? },
        (None, Some(event)) => BookingList::OfEvent { event, after: params.get("after")? },
        (None, None) => BookingList::All { after: params.get("after")? },
    };
    let (status, limit) = (params.get("status")?, params.limit()?);
    let page = app.engine.bookings(&caller.reader(), list, status, limit).await?;
    let now = app.engine.now();
    let data = page.rows.iter().map(|booking| BookingView::new(booking, now)).collect();
    Ok(Json(PageView { data, next_cursor: page.next }).into_response())
}

/// Whom a booking is for: oneself, for a user; whom it names, for the others.
fn booked_user(identity: &Identity, named: Option<UserId>) -> Result<UserId, Problem> {
    match (identity.role, named) {
        (Role::User, None) => Ok(identity.user.clone()),
        (Role::User, Some(user)) if user == identity.user => Ok(user),
        (Role::User, Some(_)) => Err(Problem::forbidden("A user books and lists for itself only.")),
        (Role::Service | Role::Admin, Some(user)) => Ok(user),
        (Role::Service | Role::Admin, None) => {
            let detail = "must say whom the booking is for";
            Err(Problem::invalid(&[Invalid::new("/userId", detail)]))
        }
    }
}
