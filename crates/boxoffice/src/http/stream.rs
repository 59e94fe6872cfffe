//! `/v1/events/{id}/availability/stream`: live availability as server-sent events.
//!
//! Each message contains the complete state. A client that reconnects needs only the next message, and a slow
//! client skips intermediate states, so no messages queue up.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use domain::Event;
use futures_util::{Stream, stream};
use tokio::sync::watch;

use super::App;
use super::caller::{AnyReader, Client};
use super::params::PathId;
use crate::limit::{STREAM_HEARTBEAT_EVERY, STREAMS_MAX, STREAMS_PER_ADDRESS_MAX};
use crate::problem::Problem;
use crate::wire::AvailabilityView;

/// Makes proxies such as nginx forward messages without buffering.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The number of open streams, in total and per address.
#[derive(Default)]
pub(crate) struct Streams(Mutex<StreamCounts>);

#[derive(Default)]
struct StreamCounts {
    total: usize,
    per_address: HashMap<IpAddr, usize>,
}

/// Counts as one open stream of an address until it is dropped.
struct StreamPermit {
    streams: Arc<Streams>,
    address: IpAddr,
}

impl Streams {
    /// The number of open streams.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).total
    }

    /// A permit for a stream; `None` if the total or the address has reached its limit.
    fn acquire(self: &Arc<Self>, address: IpAddr) -> Option<StreamPermit> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = counts.per_address.get(&address).copied().unwrap_or(0);
        let is_at_limit = of_address >= STREAMS_PER_ADDRESS_MAX && !address.is_loopback();
        if is_at_limit || counts.total >= STREAMS_MAX {
            return None;
        }
        counts.total += 1;
        counts.per_address.insert(address, of_address + 1);
        Some(StreamPermit { streams: self.clone(), address })
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut counts = self.streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total = counts.total.saturating_sub(1);
        let left = counts.per_address.get(&self.address).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            counts.per_address.remove(&self.address);
        } else {
            counts.per_address.insert(self.address, left);
        }
    }
}

pub(super) async fn availability(
    State(app): State<App>,
    Client(address): Client,
    AnyReader(reader): AnyReader,
    event: PathId,
) -> Result<Response, Problem> {
    let updates = app.engine.watch(&reader, event.id("event")?).await?;
    let permit = app.streams.acquire(address).ok_or_else(|| Problem::from(engine::Error::Overloaded))?;
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
    stream::unfold(start, async |(app, mut updates, permit, retry)| {
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
