//! A run: events are created, clients send requests, and the counters are compared at the end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::client::{Client, Response};
use crate::limit::{BACKLOG_WAIT_MAX, OPEN_BOOKINGS_MAX, ORGANISERS};
use crate::mix::{Popularity, Step};
use crate::plan::{Load, Pace};
use crate::report::{CounterCheck, Report, Sample};
use crate::tally::{Outcome, Tally};

/// A load in progress.
struct Run {
    load: Load,
    /// Distinguishes the users of this run from those of others.
    name: String,
    events: Vec<String>,
    popularity: Popularity,
    began: Instant,
    counted_from: Instant,
    ends: Instant,
    scheduled: AtomicU64,
    bookings: AtomicU64,
    tally: Tally,
    expected: ExpectedCounts,
}

/// The changes that the servers have acknowledged, to be compared with their counters.
struct ExpectedCounts {
    /// Per event: acknowledged bookings minus acknowledged cancellations.
    live: Vec<AtomicI64>,
    /// Number of changes with an unknown outcome.
    unknown: AtomicU64,
}

/// Generates the load and returns the report.
pub async fn run(load: Load) -> Result<Report, String> {
    let events = create_events(&load).await?;
    let began = Instant::now();
    let counted_from = began + load.warm_up;
    let run = Arc::new(Run {
        name: format!("{:08x}", fastrand::u32(..)),
        popularity: Popularity::new(events.len(), load.zipf),
        expected: ExpectedCounts {
            live: events.iter().map(|_| AtomicI64::new(0)).collect(),
            unknown: AtomicU64::new(0),
        },
        began,
        counted_from,
        ends: counted_from + load.duration,
        scheduled: AtomicU64::new(0),
        bookings: AtomicU64::new(0),
        tally: Tally::default(),
        events,
        load,
    });
    let mut workers = JoinSet::new();
    for number in 0..run.load.connections {
        workers.spawn(Worker::new(run.clone(), number)?.run());
    }
    sleep_until(run.counted_from).await;
    let before = Sample::take(&run.load).await;
    sleep_until(run.ends).await;
    let after = Sample::take(&run.load).await;
    workers.join_all().await;
    let counted = Instant::now() - run.counted_from;
    let counter_check = run.compare().await?;
    let run = Arc::into_inner(run).ok_or("a client is still running")?;
    Ok(Report { counts: run.tally.into_counts(), counted, before, after, counter_check, load: run.load })
}

async fn create_events(load: &Load) -> Result<Vec<String>, String> {
    let mut organisers = JoinSet::new();
    let count = ORGANISERS.min(load.events);
    for number in 0..count {
        let mut client = load.admin(number)?;
        let share = load.events / count + usize::from(number < load.events % count);
        let body = json!({
            "name": "Bench", "venue": "Here", "startsAt": load.starts_at, "capacity": load.capacity,
            "price": {"amount": 4_500, "currency": "EUR"}, "holdSeconds": load.hold.as_secs(),
        });
        let body = body.to_string();
        organisers.spawn(async move {
            let mut ids = Vec::with_capacity(share);
            for _ in 0..share {
                let response = client.request(Method::POST, "/v1/events", Some(body.clone())).await?;
                ids.push(id_of(&response, StatusCode::CREATED)?);
            }
            Ok::<_, String>(ids)
        });
    }
    let ids: Result<Vec<_>, _> = organisers.join_all().await.into_iter().collect();
    Ok(ids?.into_iter().flatten().collect())
}

impl Run {
    /// Waits until the next request is due, and returns that instant; `None` at the end of the run.
    async fn due(&self) -> Option<Instant> {
        let Pace::Open { per_second } = self.load.pace else {
            let now = Instant::now();
            return (now < self.ends).then_some(now);
        };
        loop {
            let number = self.scheduled.fetch_add(1, Ordering::Relaxed);
            #[expect(clippy::cast_precision_loss, reason = "a run has fewer requests than 53 bits can count")]
            let due = self.began + Duration::from_secs_f64(number as f64 / f64::from(per_second));
            if due >= self.ends {
                return None;
            }
            if Instant::now() < self.ends + BACKLOG_WAIT_MAX {
                sleep_until(due).await;
                return Some(due);
            }
            self.tally.record_dropped();
        }
    }

    /// Compares the acknowledged changes with the counters of each event.
    async fn compare(self: &Arc<Self>) -> Result<CounterCheck, String> {
        let mut counter_check = CounterCheck {
            unknown: self.expected.unknown.load(Ordering::Relaxed),
            ..CounterCheck::default()
        };
        let mut client = self.load.admin(0)?;
        for (event, expected) in self.events.iter().zip(&self.expected.live) {
            let response =
                client.request(Method::GET, &format!("/v1/events/{event}/availability"), None).await?;
            let body = response.json();
            let count = |name: &str| body[name].as_i64().ok_or_else(|| format!("no {name}: {body}"));
            let (taken, capacity) = (count("held")? + count("sold")?, count("capacity")?);
            counter_check.oversold += u64::try_from(taken - capacity).unwrap_or(0);
            counter_check.difference += taken.abs_diff(expected.load(Ordering::Relaxed));
        }
        // Holds that expire during the run change the counters without a response to any client.
        counter_check.comparable = self.load.hold > self.began.elapsed();
        Ok(counter_check)
    }
}

/// One client with one connection.
struct Worker {
    run: Arc<Run>,
    client: Client,
    rng: Rng,
    /// Bookings of this client that are neither confirmed nor cancelled, oldest first.
    open: VecDeque<OpenBooking>,
}

struct OpenBooking {
    id: String,
    event: usize,
}

impl Worker {
    fn new(run: Arc<Run>, number: usize) -> Result<Self, String> {
        let target = run.load.targets[number % run.load.targets.len()];
        let client = Client::new(target, &run.load.callers.service)?;
        let rng = Rng::with_seed(run.load.seed.wrapping_add(number as u64));
        Ok(Self { run, client, rng, open: VecDeque::new() })
    }

    async fn run(mut self) {
        while let Some(due) = self.run.due().await {
            let sent = Instant::now();
            let outcome = self.step().await;
            if due >= self.run.counted_from {
                self.run.tally.record(outcome, due.elapsed(), sent - due);
            }
        }
    }

    async fn step(&mut self) -> Outcome {
        loop {
            return match (self.run.load.mix.draw(&mut self.rng), self.open.is_empty()) {
                (Step::ReadAvailability, _) => self.read_availability().await,
                (Step::Leave, false) => {
                    self.open.pop_front();
                    continue;
                }
                (Step::Confirm, false) => self.settle(Step::Confirm).await,
                (Step::Cancel, false) => self.settle(Step::Cancel).await,
                (Step::Book | Step::Confirm | Step::Cancel | Step::Leave, _) => self.book().await,
            };
        }
    }

    async fn read_availability(&mut self) -> Outcome {
        let event = &self.run.events[self.run.popularity.draw(&mut self.rng)];
        let path = format!("/v1/events/{event}/availability");
        let response = self.client.request(Method::GET, &path, None).await;
        self.classify(Step::ReadAvailability, response.as_ref())
    }

    async fn book(&mut self) -> Outcome {
        let run = self.run.clone();
        let event = run.popularity.draw(&mut self.rng);
        let number = run.bookings.fetch_add(1, Ordering::Relaxed);
        let number = run.load.users.map_or(number, |users| number % users);
        // Formatted by hand: nothing in it needs escaping, and the generator shares the processors of the
        // servers.
        let body = format!(
            r#"{{"eventId":"{}","ticketQuantity":1,"userId":"bench-{}-{number}"}}"#,
            run.events[event], run.name
        );
        let response = self.client.request(Method::POST, "/v1/bookings", Some(body)).await;
        let outcome = self.classify(Step::Book, response.as_ref());
        if let (Outcome::Done(_), Ok(response)) = (&outcome, &response) {
            run.expected.live[event].fetch_add(1, Ordering::Relaxed);
            if run.load.mix.uses_bookings()
                && let Ok(id) = id_of(response, StatusCode::CREATED)
            {
                self.open.push_back(OpenBooking { id, event });
                if self.open.len() > OPEN_BOOKINGS_MAX {
                    self.open.pop_front();
                }
            }
        }
        outcome
    }

    async fn settle(&mut self, step: Step) -> Outcome {
        let Some(OpenBooking { id, event }) = self.open.pop_front() else { return self.book().await };
        let (verb, body) = match step {
            Step::Cancel => ("cancel", "{}".to_owned()),
            _ => ("confirm", format!(r#"{{"paymentTransactionId":"pay-{id}"}}"#)),
        };
        let response =
            self.client.request(Method::POST, &format!("/v1/bookings/{id}/{verb}"), Some(body)).await;
        let outcome = self.classify(step, response.as_ref());
        if matches!((&outcome, step), (Outcome::Done(_), Step::Cancel)) {
            self.run.expected.live[event].fetch_sub(1, Ordering::Relaxed);
        }
        outcome
    }

    /// Classifies a response, and counts changes with an unknown outcome.
    fn classify(&self, step: Step, response: Result<&Response, &String>) -> Outcome {
        let outcome = match response {
            Ok(response) if response.status.is_success() => Outcome::Done(step),
            Ok(response) => {
                let code = response.json()["code"].as_str().map(str::to_owned);
                Outcome::Refused(code.unwrap_or_else(|| response.status.as_u16().to_string()))
            }
            Err(error) => Outcome::Broken(error.clone()),
        };
        let is_unknown = match &outcome {
            Outcome::Broken(_) => true,
            Outcome::Refused(code) => code == "outcome_unknown",
            Outcome::Done(_) => false,
        };
        if is_unknown && matches!(step, Step::Book | Step::Cancel) {
            self.run.expected.unknown.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }
}

/// Returns the id in a response, which must have this status.
fn id_of(response: &Response, status: StatusCode) -> Result<String, String> {
    let body: Value = response.json();
    let id = body["id"].as_str().filter(|_| response.status == status);
    id.map(str::to_owned).ok_or_else(|| format!("{}: {body}", response.status))
}
