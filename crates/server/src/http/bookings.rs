//! `/v1/bookings`.

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::{BookingId, EventId, Invalid, UserId};
use engine::OrderRequest;
use store::BookingList;

use super::App;
use super::caller::Caller;
use super::params::{Params, id};
use super::payload::{Json, Payload};
use crate::auth::{Identity, Role};
use crate::problem::Problem;
use crate::wire::{BookingView, CancelRequest, ConfirmRequest, CreateBooking, PageView};

pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    payload: Payload,
) -> Result<Response, Problem> {
    let body = payload.parse::<CreateBooking>()?;
    let ask = body.ask().map_err(|wrong| Problem::invalid(&[wrong]))?;
    let user = booked_user(caller.identity(), body.user_id.map(|user| user.0))?;
    let expected_total = body.expected_total.map(|money| money.0);
    let payment_method = body.payment_method.map(|text| text.0);
    let order = OrderRequest { event_id: body.event_id, user, ask, expected_total, payment_method };
    let booking = app.engine.book(caller.engine(), order).await?;
    let location = [(header::LOCATION, format!("/v1/bookings/{}", booking.id))];
    Ok((StatusCode::CREATED, location, Json(BookingView::new(&booking, app.engine.now()))).into_response())
}

pub(super) async fn confirm(
    State(app): State<App>,
    caller: Caller,
    Path(booking): Path<String>,
    payload: Payload,
) -> Result<Response, Problem> {
    caller.require_service()?;
    let body = payload.parse::<ConfirmRequest>()?;
    let (transaction, amount) = (body.payment_transaction_id.0, body.amount.map(|money| money.0));
    let booking = id::<BookingId>(&booking, "booking")?;
    let booking = app.engine.confirm(caller.engine(), booking, transaction, amount).await?;
    Ok(Json(BookingView::new(&booking, app.engine.now())).into_response())
}

pub(super) async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Path(booking): Path<String>,
    payload: Payload,
) -> Result<Response, Problem> {
    let body = payload.parse_or_default::<CancelRequest>()?;
    let booking = id::<BookingId>(&booking, "booking")?;
    let booking = app.engine.cancel(caller.engine(), booking, body.reason.map(|text| text.0)).await?;
    Ok(Json(BookingView::new(&booking, app.engine.now())).into_response())
}

pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(booking): Path<String>,
) -> Result<Response, Problem> {
    let booking = app.engine.booking(&caller.actor(), id(&booking, "booking")?).await?;
    Ok(Json(BookingView::new(&booking, app.engine.now())).into_response())
}

pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    params: Params,
) -> Result<Response, Problem> {
    params.only(&["limit", "after", "eventId", "userId", "status"])?;
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
    let page = app.engine.bookings(list, params.get("status")?, params.limit()?).await?;
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
