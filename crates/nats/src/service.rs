//! The request/reply service. Each request is handled by one instance, in a task of its own. The service also
//! replies to service discovery (NATS ADR-32).
//!
//! The services of the client library are not used: they cannot be stopped without losing requests in flight.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::{App, Problem};
use async_nats::{Client, HeaderMap, Message, Subject, Subscriber};
use domain::{Invalid, Timestamp, TraceParent};
use futures_util::stream::{SelectAll, select_all};
use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::{Map, Value, json};
use store::{Cause, Fault};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::bookings;
use crate::connection::Nats;
use crate::limit::{DRAIN_WAIT_MAX, REPLY_HEADERS_BYTES_MAX, REQUESTS_MAX};
use crate::reply::{Failure, Reply};
use crate::request::NatsRequest;
use crate::subject::{QUEUE_GROUP, REQUESTS, Request, is_reserved};

const NAME: &str = "boxoffice";
const ERROR: &str = "Nats-Service-Error";
const ERROR_CODE: &str = "Nats-Service-Error-Code";
/// Pause before subscriptions are retried. They fail only if the client has terminated and is being replaced.
const SUBSCRIBE_PAUSE: Duration = Duration::from_millis(250);

/// The service of this instance.
struct Service {
    app: App,
    nats: Arc<Nats>,
    id: String,
    started: Timestamp,
    endpoint_stats: [EndpointStats; REQUESTS.len()],
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
}

/// Statistics of the requests on one subject.
#[derive(Default)]
struct EndpointStats {
    requests: AtomicU64,
    errors: AtomicU64,
    nanos: AtomicU64,
}

/// Handles requests until shutdown, and then those that are already in flight.
pub async fn serve(app: App, nats: Arc<Nats>) {
    let (stop, id) = (app.stop.clone(), format!("{:x}", u128::from_be_bytes(to_16_bytes(app.ids.random()))));
    let task = app.supervisor.task("nats-requests");
    let service = Arc::new(Service {
        started: app.engine.now(),
        endpoint_stats: Default::default(),
        permits: Arc::new(Semaphore::new(REQUESTS_MAX)),
        tasks: TaskTracker::new(),
        app,
        nats,
        id,
    });
    task.run_until(&stop, &mut || service.run()).await;
    service.tasks.close();
    service.tasks.wait().await;
}

fn to_16_bytes(random: [u8; 10]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[6..].copy_from_slice(&random);
    bytes
}

impl Service {
    /// Handles requests until shutdown, and subscribes again whenever the client was replaced.
    async fn run(self: &Arc<Self>) {
        let stop = &self.app.stop;
        while !stop.is_cancelled() {
            if let Err(error) = self.run_on(self.nats.client()).await {
                tracing::debug!(%error, "cannot subscribe to requests over NATS; retrying");
            }
            tokio::select! { () = stop.cancelled() => (), () = sleep(SUBSCRIBE_PAUSE) => () }
        }
    }

    /// Handles requests until shutdown or until the client has terminated.
    async fn run_on(self: &Arc<Self>, client: Client) -> Result<(), async_nats::SubscribeError> {
        let mut discovery = self.subscribe_to_discovery(&client).await?;
        let mut requests = Vec::new();
        for (_, subject) in REQUESTS {
            requests.push(client.queue_subscribe(subject, QUEUE_GROUP.to_owned()).await?);
        }
        let mut requests: SelectAll<Subscriber> = select_all(requests);
        loop {
            tokio::select! {
                biased;
                () = self.app.stop.cancelled() => break,
                query = discovery.next() => match query {
                    Some(message) => self.reply_to_discovery(&message).await,
                    None => return Ok(()),
                },
                request = requests.next() => match request {
                    Some(message) => self.accept(message).await,
                    None => return Ok(()),
                },
            }
        }
        let draining = async {
            for subscriber in &mut requests {
                // Fails only if the connection is closed permanently.
                let _ = subscriber.drain().await;
            }
            while let Some(message) = requests.next().await {
                self.accept(message).await;
            }
        };
        let _ = timeout(DRAIN_WAIT_MAX, draining).await;
        Ok(())
    }

    /// Spawns a task for a request, so that a slow request does not delay others.
    async fn accept(self: &Arc<Self>, message: Message) {
        let Some(index) = REQUESTS.iter().position(|(_, subject)| *subject == message.subject.as_str())
        else {
            return;
        };
        let (kind, subject) = REQUESTS[index];
        let Some(request) = NatsRequest::from_message(&self.app, &message) else {
            self.nats.record_request(subject, "dropped");
            tracing::debug!(subject, "an expired request was dropped");
            return;
        };
        let Ok(permit) = self.permits.clone().try_acquire_owned() else {
            let reply = problem(kind, Problem::overloaded(), &request);
            return self.send(index, &message, &request, reply).await;
        };
        let service = self.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "the task belongs to one request; a panic in it becomes the reply"
        )]
        drop(self.tasks.spawn(async move {
            let reply = service.handle(kind, &request).await;
            if request.is_expired() {
                service.nats.record_request(subject, "dropped");
            } else {
                service.send(index, &message, &request, reply).await;
            }
            drop(permit);
        }));
    }

    /// Returns the reply to a request, also if its handler panics.
    async fn handle(&self, kind: Request, request: &NatsRequest) -> Reply {
        let result = AssertUnwindSafe(bookings::handle(&self.app, kind, request)).catch_unwind().await;
        let result = result.unwrap_or_else(|_| Err(Fault::OutcomeUnknown(Cause::new("a panic")).into()));
        let reply = result.unwrap_or_else(|error| {
            if let Some(cause) = error.cause() {
                let trace = request.trace().map(TraceParent::trace_id);
                tracing::error!(request = request.request_id().as_str(), trace, cause, "a request failed");
            }
            problem(kind, error, request)
        });
        self.fitting(kind, request, reply)
    }

    /// Returns the reply, or a refusal if the server would not deliver it. Only a list can be that long.
    fn fitting(&self, kind: Request, request: &NatsRequest, reply: Reply) -> Reply {
        let reply_bytes_max =
            self.nats.client().server_info().max_payload.saturating_sub(REPLY_HEADERS_BYTES_MAX);
        if kind != Request::List || reply.body.len() <= reply_bytes_max {
            return reply;
        }
        let too_long = "is too high: the reply would exceed the max_payload of the NATS server";
        problem(kind, Problem::invalid(&[Invalid::new("/limit", too_long)]), request)
    }

    async fn send(&self, index: usize, message: &Message, request: &NatsRequest, reply: Reply) {
        let (stats, (_, subject)) = (&self.endpoint_stats[index], REQUESTS[index]);
        let code = reply.problem.as_ref().map_or("ok", |failure| failure.code.as_str());
        self.nats.record_request(subject, code);
        stats.requests.fetch_add(1, Ordering::Relaxed);
        stats.errors.fetch_add(u64::from(reply.problem.is_some()), Ordering::Relaxed);
        let nanos = u64::try_from(request.received_at().elapsed().as_nanos()).unwrap_or(u64::MAX);
        stats.nanos.fetch_add(nanos, Ordering::Relaxed);
        let trace = request.trace().map(TraceParent::trace_id);
        tracing::debug!(request = request.request_id().as_str(), trace, subject, code, nanos, "replied");
        let Some(to) = reply_subject(message) else { return };
        let headers = headers(reply.problem.as_ref(), request.trace());
        let sent = self.nats.client().publish_with_headers(to, headers, reply.body.into()).await;
        if let Err(error) = sent {
            tracing::warn!(subject, %error, "cannot send a reply");
        }
    }

    /// Subscribes to the subjects of service discovery.
    async fn subscribe_to_discovery(
        &self,
        client: &Client,
    ) -> Result<SelectAll<Subscriber>, async_nats::SubscribeError> {
        let mut all = Vec::new();
        for verb in ["PING", "INFO", "STATS"] {
            for suffix in [String::new(), format!(".{NAME}"), format!(".{NAME}.{}", self.id)] {
                all.push(client.subscribe(format!("$SRV.{verb}{suffix}")).await?);
            }
        }
        Ok(select_all(all))
    }

    /// Replies to a query of service discovery.
    async fn reply_to_discovery(&self, message: &Message) {
        let (Some(to), Some(verb)) = (reply_subject(message), message.subject.split('.').nth(1)) else {
            return;
        };
        let mut reply = json!({
            "type": format!("io.nats.micro.v1.{}_response", verb.to_ascii_lowercase()),
            "name": NAME, "id": self.id, "version": env!("CARGO_PKG_VERSION"), "metadata": {},
        });
        match verb {
            "INFO" => {
                reply["description"] = json!("Booking, payment, cancellation and listing of tickets");
                reply["endpoints"] = REQUESTS.iter().map(|(_, subject)| endpoint(subject)).collect();
            }
            "STATS" => {
                reply["started"] = json!(self.started);
                let endpoints = REQUESTS.iter().zip(&self.endpoint_stats);
                reply["endpoints"] =
                    endpoints.map(|((_, subject), stats)| stats.add_to(endpoint(subject))).collect();
            }
            _ => {}
        }
        if let Err(error) = self.nats.client().publish(to, reply.to_string().into()).await {
            tracing::warn!(%error, "cannot send a reply");
        }
    }
}

/// Returns the subject of the reply. There is no reply if the request names no subject, or a reserved one.
fn reply_subject(message: &Message) -> Option<Subject> {
    message.reply.clone().filter(|to| !is_reserved(to))
}

fn endpoint(subject: &str) -> Value {
    json!({"name": subject.replace('.', "-"), "subject": subject, "queue_group": QUEUE_GROUP, "metadata": {}})
}

impl EndpointStats {
    fn add_to(&self, mut endpoint: Value) -> Value {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (requests, nanos) = (count(&self.requests), count(&self.nanos));
        endpoint["num_requests"] = json!(requests);
        endpoint["num_errors"] = json!(count(&self.errors));
        endpoint["last_error"] = json!("");
        endpoint["processing_time"] = json!(nanos);
        endpoint["average_processing_time"] = json!(nanos.checked_div(requests).unwrap_or(0));
        endpoint
    }
}

/// Returns the reply for a problem, with the members that the MongoDB booking service also has on that
/// subject.
fn problem(kind: Request, problem: Problem, request: &NatsRequest) -> Reply {
    let mut members = Map::new();
    match kind {
        Request::List => drop(members.insert("bookings".to_owned(), json!([]))),
        Request::Validate => drop(members.insert("valid".to_owned(), json!(false))),
        Request::Create | Request::Cancel | Request::Get | Request::ConfirmPayment | Request::Stats => {}
    }
    Reply::problem(problem, request.message_id(), &members)
}

fn headers(failure: Option<&Failure>, trace: Option<&TraceParent>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(failure) = failure {
        headers.insert(ERROR, failure.code.as_str());
        headers.insert(ERROR_CODE, failure.status.to_string());
    }
    if let Some(trace) = trace {
        headers.insert(TraceParent::NAME, trace.as_str());
    }
    headers
}
