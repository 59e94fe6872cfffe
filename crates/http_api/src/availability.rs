//! `/v1/events/{id}/availability/stream`: live availability as server-sent events.
//!
//! Each message contains the complete state. A client that reconnects needs only the next message, and a slow
//! client skips intermediate states, so no messages queue up.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use api::App;
use api::wire::AvailabilityView;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use domain::Event;
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::watch;

use crate::caller::{AnyReader, Client};
use crate::limit::STREAM_HEARTBEAT_EVERY;
use crate::params::PathId;
use crate::rejection::Rejection;
use crate::state::HttpState;
use crate::streams::StreamPermit;

/// Makes proxies such as nginx forward messages without buffering.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

pub(crate) async fn stream(
    State(HttpState { app, streams, .. }): State<HttpState>,
    Client(address): Client,
    AnyReader(reader): AnyReader,
    event: PathId,
) -> Result<Response, Rejection> {
    let updates = app.engine.watch(&reader, event.id("event")?).await?;
    let permit = streams.acquire(address).ok_or(engine::Error::Overloaded)?;
    // Jitter of about 3 s on the retry delay: the clients of a failed instance must not all reconnect at
    // once.
    let retry = Duration::from_millis(2_000 + u64::from(app.ids.random()[0]) * 12);
    let messages = Sse::new(messages(app, updates, permit, retry));
    let mut response = messages.keep_alive(KeepAlive::new().interval(STREAM_HEARTBEAT_EVERY)).into_response();
    response.headers_mut().insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// Sends the state at once and after every change. Ends at shutdown.
fn messages(
    app: App,
    updates: watch::Receiver<Arc<Event>>,
    permit: StreamPermit,
    retry: Duration,
) -> impl Stream<Item = Result<Message, Infallible>> {
    let start = (app, updates, permit, Some(retry));
    unfold(start, async |(app, mut updates, permit, retry)| {
        if retry.is_none() {
            tokio::select! {
                () = app.stop.cancelled() => return None,
                changed = updates.changed() => changed.ok()?,
            }
        }
        let event = updates.borrow_and_update().clone();
        let view = AvailabilityView::new(&event, app.engine.now());
        let message = Message::default().event("availability").id(event.inventory.seq.to_string());
        let message = message.json_data(view).ok()?;
        let message = retry.map_or(message.clone(), |retry| message.retry(retry));
        Some((Ok(message), (app, updates, permit, None)))
    })
}
