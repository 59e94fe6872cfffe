//! `/v1/events`.

use api::wire::{AvailabilityView, CreateEvent, EntryView, EventView, PageView, UpdateEvent};
use api::{App, Problem};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::Answer;
use engine::CommandOutput;

use crate::caller::{AnyReader, Caller};
use crate::command_request::CommandRequest;
use crate::params::{Params, PathId};
use crate::payload::Json;
use crate::rejection::Rejection;
use crate::response::respond;

pub(crate) async fn create(State(app): State<App>, command: CommandRequest) -> Result<Response, Rejection> {
    command.caller.require_admin()?;
    let new = command
        .parse::<CreateEvent>()?
        .into_event(&app.engine)
        .map_err(|error| Problem::invalid(&[error]))?;
    let idempotency = command.idempotency(StatusCode::CREATED)?;
    let output = app.engine.create_event(command.caller.into_engine_caller(), new, idempotency).await?;
    respond(&app, output, StatusCode::CREATED)
}

pub(crate) async fn update(
    State(app): State<App>,
    event: PathId,
    command: CommandRequest,
) -> Result<Response, Rejection> {
    command.caller.require_admin()?;
    let patch = command.parse::<UpdateEvent>()?.into_patch(if_match(command.headers())?);
    let output =
        app.engine.update_event(command.caller.into_engine_caller(), event.id("event")?, patch).await?;
    respond(&app, output, StatusCode::OK)
}

pub(crate) async fn list(
    State(app): State<App>,
    AnyReader(reader): AnyReader,
    params: Params,
) -> Result<Response, Rejection> {
    params.allow_only(&["limit", "after"])?;
    let page = app.engine.events(&reader, params.get("after")?, params.limit()?).await?;
    let data = page.rows.iter().map(EventView::from).collect();
    Ok(Json(PageView { data, next_cursor: page.next }).into_response())
}

pub(crate) async fn show(
    State(app): State<App>,
    AnyReader(reader): AnyReader,
    event: PathId,
) -> Result<Response, Rejection> {
    let event = app.engine.event(&reader, event.id("event")?).await?;
    respond(&app, CommandOutput::Fresh(Answer::Event(Box::new(event))), StatusCode::OK)
}

pub(crate) async fn availability(
    State(app): State<App>,
    AnyReader(reader): AnyReader,
    event: PathId,
) -> Result<Response, Rejection> {
    let as_of = app.engine.now();
    let event = app.engine.event(&reader, event.id("event")?).await?;
    Ok(Json(AvailabilityView::new(&event, as_of)).into_response())
}

pub(crate) async fn ledger(
    State(app): State<App>,
    caller: Caller,
    event: PathId,
    params: Params,
) -> Result<Response, Rejection> {
    caller.require_admin()?;
    params.allow_only(&["limit", "after"])?;
    let (after, limit) = (params.get("after")?.unwrap_or(0), params.limit()?);
    let page = app.engine.ledger(&caller.reader(), event.id("event")?, after, limit).await?;
    let data = page.rows.iter().map(EntryView::from).collect();
    Ok(Json(PageView { data, next_cursor: page.next }).into_response())
}

/// The version required by `If-Match` (RFC 9110 §13.1.1). `None` if any version will do; 0, which no event
/// has, if the tag is not one of this server. A list of tags is rejected, because an event has one version.
fn if_match(headers: &HeaderMap) -> Result<Option<u32>, Problem> {
    let one = || Problem::malformed("If-Match must be one entity tag, or *.");
    let mut tags = headers.get_all(header::IF_MATCH).iter();
    let Some(tag) = tags.next() else { return Ok(None) };
    let tag = tag.to_str().ok().filter(|_| tags.next().is_none()).ok_or_else(one)?;
    if tag == "*" {
        return Ok(None);
    }
    let opaque = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    if opaque.is_some_and(|opaque| opaque.contains('"')) {
        return Err(one());
    }
    Ok(Some(opaque.and_then(|version| version.parse().ok()).unwrap_or(0)))
}
