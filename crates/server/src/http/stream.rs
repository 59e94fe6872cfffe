//! `/v1/events/{id}/availability/stream`: live availability as server-sent events.
//!
//! Each message is the whole state, so a reader that was away needs nothing but the next one, and one that
//! is slow skips what it has missed. Nothing queues up.

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
use crate::limit::{STREAM_HEARTBEAT, STREAMS_MAX, STREAMS_PER_ADDRESS_MAX};
use crate::problem::Problem;
use crate::wire::AvailabilityView;

/// Tells proxies not to hold messages back.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The streams that are open, in all and per address.
#[derive(Default)]
pub(crate) struct Streams(Mutex<StreamCounts>);

#[derive(Default)]
struct StreamCounts {
    all: usize,
    per_address: HashMap<IpAddr, usize>,
}

/// One open stream of an address.
struct StreamPermit {
    streams: Arc<Streams>,
    address: IpAddr,
}

impl Streams {
    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).all
    }

    fn open(self: &Arc<Self>, address: IpAddr) -> Option<StreamPermit> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = open.per_address.get(&address).copied().unwrap_or(0);
        let crowded = of_address >= STREAMS_PER_ADDRESS_MAX && !address.is_loopback();
        if crowded || open.all >= STREAMS_MAX {
            return None;
        }
        open.all += 1;
        open.per_address.insert(address, of_address + 1);
        Some(StreamPermit { streams: self.clone(), address })
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut open = self.streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.all = open.all.saturating_sub(1);
        let left = open.per_address.get(&self.address).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            open.per_address.remove(&self.address);
        } else {
            open.per_address.insert(self.address, left);
        }
    }
}

pub(super) async fn availability(
    State(app): State<App>,
    Client(address): Client,
    AnyReader(reader): AnyReader,
    event: PathId,
) -> Result<Response, Problem> {
    let watching = app.engine.watch(&reader, event.id("event")?).await?;
    let seat = app.streams.open(address).ok_or_else(|| Problem::from(engine::Error::Overloaded))?;
    // Spread over some seconds, so that those who lost one instance do not all come back at once.
    let retry = Duration::from_millis(2_000 + u64::from(app.ids.random()[0]) * 12);
    let messages = Sse::new(messages(app, watching, seat, retry));
    let mut response = messages.keep_alive(KeepAlive::new().interval(STREAM_HEARTBEAT)).into_response();
    response.headers_mut().insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// The state at once, and again after every change; ends when the program is told to stop.
fn messages(
    app: App,
    watching: watch::Receiver<Arc<Event>>,
    seat: StreamPermit,
    retry: Duration,
) -> impl Stream<Item = Result<Message, Infallible>> {
    let start = (app, watching, seat, Some(retry));
    stream::unfold(start, async |(app, mut watching, seat, retry)| {
        if retry.is_none() {
            tokio::select! {
                () = app.stop.cancelled() => return None,
                changed = watching.changed() => changed.ok()?,
            }
        }
        let event = watching.borrow_and_update().clone();
        let view = AvailabilityView::new(&event, app.engine.now());
        let message = Message::default().event("availability").id(event.inventory.seq.to_string());
        let message = message.json_data(view).ok()?;
        let message = retry.map_or(message.clone(), |retry| message.retry(retry));
        Some((Ok(message), (app, watching, seat, None)))
    })
}
