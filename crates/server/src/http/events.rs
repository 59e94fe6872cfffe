//! `/v1/events`.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::{Event, EventId};

use super::App;
use super::caller::Caller;
use super::params::{Params, id};
use super::payload::{Json, Payload};
use crate::problem::Problem;
use crate::wire::{AvailabilityView, CreateEvent, EntryView, EventView, PageView, UpdateEvent};

pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    payload: Payload,
) -> Result<Response, Problem> {
    caller.require_admin()?;
    let new = payload
        .parse::<CreateEvent>()?
        .into_event(&app.engine)
        .map_err(|wrong| Problem::invalid(&[wrong]))?;
    let event = app.engine.create_event(caller.engine(), new).await?;
    let location = [(header::LOCATION, format!("/v1/events/{}", event.id))];
    Ok((StatusCode::CREATED, location, described(&event)).into_response())
}

pub(super) async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(event): Path<String>,
    headers: HeaderMap,
    payload: Payload,
) -> Result<Response, Problem> {
    caller.require_admin()?;
    let patch = payload.parse::<UpdateEvent>()?.into_patch(if_match(&headers)?);
    let event = app.engine.update_event(caller.engine(), id(&event, "event")?, patch).await?;
    Ok(described(&event))
}

pub(super) async fn list(State(app): State<App>, params: Params) -> Result<Response, Problem> {
    params.only(&["limit", "after"])?;
    let page = app.engine.events(params.get("after")?, params.limit()?).await?;
    let data = page.rows.iter().map(EventView::from).collect();
    Ok(Json(PageView { data, next_cursor: page.next }).into_response())
}

pub(super) async fn show(State(app): State<App>, Path(event): Path<String>) -> Result<Response, Problem> {
    let event = app.engine.event(id(&event, "event")?).await?;
    Ok(described(&event))
}

pub(super) async fn availability(
    State(app): State<App>,
    Path(event): Path<String>,
) -> Result<Response, Problem> {
    let as_of = app.engine.now();
    let event = app.engine.event(id(&event, "event")?).await?;
    Ok(Json(AvailabilityView::new(&event, as_of)).into_response())
}

pub(super) async fn ledger(
    State(app): State<App>,
    caller: Caller,
    Path(event): Path<String>,
    params: Params,
) -> Result<Response, Problem> {
    caller.require_admin()?;
    params.only(&["limit", "after"])?;
    let (after, limit) = (params.get("after")?.unwrap_or(0), params.limit()?);
    let page = app.engine.ledger(id::<EventId>(&event, "event")?, after, limit).await?;
    let data = page.rows.iter().map(EntryView::from).collect();
    Ok(Json(PageView { data, next_cursor: page.next }).into_response())
}

/// An event and, as its entity tag, the version of its description.
fn described(event: &Event) -> Response {
    let tag = [(header::ETAG, format!("\"{}\"", event.about.version))];
    (tag, Json(EventView::from(event))).into_response()
}

/// The version that an edit demands (RFC 9110 §13.1.1): none where any will do, 0 (which no event ever
/// has) where the tag is none of ours.
fn if_match(headers: &HeaderMap) -> Result<Option<u32>, Problem> {
    let mut tags = headers.get_all(header::IF_MATCH).iter();
    let (first, second) = (tags.next(), tags.next());
    let tag = first.map(HeaderValue::to_str).transpose().ok().filter(|_| second.is_none());
    let tag = tag.ok_or_else(|| Problem::malformed("If-Match must be one entity tag, or *."))?;
    let Some(tag) = tag.filter(|tag| *tag != "*") else { return Ok(None) };
    let opaque = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    Ok(Some(opaque.and_then(|version| version.parse().ok()).unwrap_or(0)))
}
