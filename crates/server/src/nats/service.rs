//! Requests: taken from NATS once, by whichever instance, each in a task of its own. Also says what it is
//! and does, to those who ask services (ADR-32 of NATS).
//!
//! The client library has services, too, but cannot end one without losing what is on its way.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, Subject, Subscriber};
use domain::{Timestamp, TraceParent};
use futures_util::stream::{SelectAll, select_all};
use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::{Map, Value, json};
use store::{Cause, Fault};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use super::reply::{Failure, Reply};
use super::request::NatsRequest;
use super::subject::{QUEUE_GROUP, REQUESTS, Request, is_reserved};
use super::{Nats, bookings};
use crate::http::App;
use crate::limit::NATS_REQUESTS_MAX;
use crate::problem::Problem;

const NAME: &str = "boxoffice";
const ERROR: &str = "Nats-Service-Error";
const ERROR_CODE: &str = "Nats-Service-Error-Code";
/// Longest wait, when the program is told to stop, for the requests that NATS has already sent.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(2);
/// Pause before another attempt to subscribe, which fails only where the client has ended and is being replaced.
const SUBSCRIBE_PAUSE: Duration = Duration::from_millis(250);

/// One service of this program, as others see it.
struct Service {
    app: App,
    nats: Arc<Nats>,
    id: String,
    started: Timestamp,
    endpoint_stats: [EndpointStats; REQUESTS.len()],
    room: Arc<Semaphore>,
    tasks: TaskTracker,
}

/// What became of the requests on one subject.
#[derive(Default)]
struct EndpointStats {
    requests: AtomicU64,
    errors: AtomicU64,
    nanos: AtomicU64,
}

/// Answers requests until the program stops; then those that are on their way already.
pub(crate) async fn serve(app: App, nats: Arc<Nats>) {
    let (stop, id) = (app.stop.clone(), format!("{:x}", u128::from_be_bytes(to_16_bytes(app.ids.random()))));
    let task = app.supervisor.task("nats-requests");
    let service = Arc::new(Service {
        started: app.engine.now(),
        endpoint_stats: Default::default(),
        room: Arc::new(Semaphore::new(NATS_REQUESTS_MAX)),
        tasks: TaskTracker::new(),
        app,
        nats,
        id,
    });
    task.run_until(&stop, &mut || service.listen()).await;
    service.tasks.close();
    service.tasks.wait().await;
}

fn to_16_bytes(random: [u8; 10]) -> [u8; 16] {
    let mut wide = [0; 16];
    wide[6..].copy_from_slice(&random);
    wide
}

impl Service {
    /// Listens until the program stops, anew whenever the client was replaced.
    async fn listen(self: &Arc<Self>) {
        let stop = &self.app.stop;
        while !stop.is_cancelled() {
            if let Err(error) = self.listen_on(self.nats.client()).await {
                tracing::debug!(%error, "requests over NATS cannot be taken now");
            }
            tokio::select! { () = stop.cancelled() => (), () = sleep(SUBSCRIBE_PAUSE) => () }
        }
    }

    /// Takes requests until the program stops, or the client has ended.
    async fn listen_on(self: &Arc<Self>, client: Client) -> Result<(), async_nats::SubscribeError> {
        let mut questions = self.questions(&client).await?;
        let mut requests = Vec::new();
        for (_, subject) in REQUESTS {
            requests.push(client.queue_subscribe(subject, QUEUE_GROUP.to_owned()).await?);
        }
        let mut requests: SelectAll<Subscriber> = select_all(requests);
        loop {
            tokio::select! {
                biased;
                () = self.app.stop.cancelled() => break,
                question = questions.next() => match question {
                    Some(message) => self.describe(&message).await,
                    None => return Ok(()),
                },
                request = requests.next() => match request {
                    Some(message) => self.take(message).await,
                    None => return Ok(()),
                },
            }
        }
        let draining = async {
            for subscriber in &mut requests {
                // Fails only where the connection has ended for good.
                let _ = subscriber.drain().await;
            }
            while let Some(message) = requests.next().await {
                self.take(message).await;
            }
        };
        let _ = timeout(DRAIN_WAIT_MAX, draining).await;
        Ok(())
    }

    /// Takes a request on: in a task of its own, so that a slow one delays nobody.
    async fn take(self: &Arc<Self>, message: Message) {
        let Some(place) = REQUESTS.iter().position(|(_, subject)| *subject == message.subject.as_str())
        else {
            return;
        };
        let (asked, subject) = REQUESTS[place];
        let Some(call) = NatsRequest::open(&self.app, &message) else {
            self.app.telemetry.record_nats_request(subject, "dropped");
            tracing::debug!(subject, "a request came too late, and was dropped");
            return;
        };
        let Ok(permit) = self.room.clone().try_acquire_owned() else {
            let reply = problem(asked, Problem::overloaded(), &call);
            return self.send(place, &message, &call, reply).await;
        };
        let service = self.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "it belongs to one request, which gets a panic for an answer"
        )]
        drop(self.tasks.spawn(async move {
            let reply = service.answer(asked, &call).await;
            if call.is_late() {
                service.app.telemetry.record_nats_request(subject, "dropped");
            } else {
                service.send(place, &message, &call, reply).await;
            }
            drop(permit);
        }));
    }

    /// The reply to a request, whatever happens.
    async fn answer(&self, asked: Request, call: &NatsRequest) -> Reply {
        let answer = AssertUnwindSafe(bookings::answer(&self.app, asked, call)).catch_unwind().await;
        let answer = answer.unwrap_or_else(|_| Err(Fault::OutcomeUnknown(Cause::new("a panic")).into()));
        answer.unwrap_or_else(|refused| {
            if let Some(cause) = refused.cause() {
                let trace = call.trace().map(TraceParent::trace_id);
                tracing::error!(request = call.request().as_str(), trace, cause, "a request failed");
            }
            problem(asked, refused, call)
        })
    }

    async fn send(&self, place: usize, message: &Message, call: &NatsRequest, reply: Reply) {
        let (endpoint_stats, (_, subject)) = (&self.endpoint_stats[place], REQUESTS[place]);
        let code = reply.problem.as_ref().map_or("ok", |failure| failure.code.as_str());
        self.app.telemetry.record_nats_request(subject, code);
        endpoint_stats.requests.fetch_add(1, Ordering::Relaxed);
        endpoint_stats.errors.fetch_add(u64::from(reply.problem.is_some()), Ordering::Relaxed);
        let took = u64::try_from(call.begun().elapsed().as_nanos()).unwrap_or(u64::MAX);
        endpoint_stats.nanos.fetch_add(took, Ordering::Relaxed);
        let trace = call.trace().map(TraceParent::trace_id);
        tracing::debug!(request = call.request().as_str(), trace, subject, code, nanos = took, "answered");
        let Some(to) = place_for_answer(message) else { return };
        let headers = headers(reply.problem.as_ref(), call.trace());
        let sent = self.nats.client().publish_with_headers(to, headers, reply.body.into()).await;
        if let Err(error) = sent {
            tracing::warn!(subject, %error, "a reply could not be sent");
        }
    }

    /// Listens for who asks which services there are.
    async fn questions(&self, client: &Client) -> Result<SelectAll<Subscriber>, async_nats::SubscribeError> {
        let mut all = Vec::new();
        for verb in ["PING", "INFO", "STATS"] {
            for suffix in [String::new(), format!(".{NAME}"), format!(".{NAME}.{}", self.id)] {
                all.push(client.subscribe(format!("$SRV.{verb}{suffix}")).await?);
            }
        }
        Ok(select_all(all))
    }

    /// Answers such a question.
    async fn describe(&self, message: &Message) {
        let (Some(to), Some(verb)) = (place_for_answer(message), message.subject.split('.').nth(1)) else {
            return;
        };
        let mut about = json!({
            "type": format!("io.nats.micro.v1.{}_response", verb.to_ascii_lowercase()),
            "name": NAME, "id": self.id, "version": env!("CARGO_PKG_VERSION"), "metadata": {},
        });
        match verb {
            "INFO" => {
                about["description"] = json!("Books, pays, gives back and shows tickets");
                about["endpoints"] = REQUESTS.iter().map(|(_, subject)| endpoint(subject)).collect();
            }
            "STATS" => {
                about["started"] = json!(self.started);
                let endpoint_stats = REQUESTS.iter().zip(&self.endpoint_stats);
                about["endpoints"] = endpoint_stats
                    .map(|((_, subject), endpoint_stats)| endpoint_stats.with(endpoint(subject)))
                    .collect();
            }
            _ => {}
        }
        if let Err(error) = self.nats.client().publish(to, about.to_string().into()).await {
            tracing::warn!(%error, "a reply could not be sent");
        }
    }
}

/// Where an answer goes. Who names no place for it wants none; who names one that is not for answers gets none.
fn place_for_answer(message: &Message) -> Option<Subject> {
    message.reply.clone().filter(|to| !is_reserved(to))
}

fn endpoint(subject: &str) -> Value {
    json!({"name": subject.replace('.', "-"), "subject": subject, "queue_group": QUEUE_GROUP, "metadata": {}})
}

impl EndpointStats {
    fn with(&self, mut endpoint: Value) -> Value {
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

/// What was refused or failed, with what the original service also says on that subject.
fn problem(asked: Request, problem: Problem, call: &NatsRequest) -> Reply {
    let mut own = Map::new();
    match asked {
        Request::List => drop(own.insert("bookings".to_owned(), json!([]))),
        Request::Validate => drop(own.insert("valid".to_owned(), json!(false))),
        Request::Create | Request::Cancel | Request::Get | Request::ConfirmPayment | Request::Stats => {}
    }
    Reply::problem(problem, call.message_id(), &own)
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
