//! The run itself: events are put on sale, clients go to work, and the counters are looked at afterwards.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::client::{Answer, Client, Target};
use super::mix::{Mix, Popularity, Step};
use super::report::{CounterCheck, Report, Sample};
use super::tally::{Outcome, Tally};

/// Bookings that one client remembers to settle later; beyond it the oldest are left to expire.
const OPEN_MAX: usize = 1_000;
/// How long the requests of a schedule are still sent after its end; the rest is given up.
const BACKLOG_WAIT_MAX: Duration = Duration::from_secs(10);
/// Clients that put events on sale.
const ORGANISERS: usize = 64;

/// What is asked of the servers, and how hard.
pub(crate) struct Load {
    /// The servers; connections are spread evenly over them.
    pub(crate) targets: Vec<Target>,
    pub(crate) callers: Callers,
    pub(crate) pace: Pace,
    pub(crate) connections: usize,
    /// How long requests are counted, after `warm_up`.
    pub(crate) duration: Duration,
    pub(crate) warm_up: Duration,
    pub(crate) events: usize,
    /// How unequally events are wanted: see [`Popularity`].
    pub(crate) zipf: f64,
    /// Of each event.
    pub(crate) capacity: u32,
    pub(crate) hold: Duration,
    /// How many users take turns; each booking has a user of its own where unset.
    pub(crate) users: Option<u64>,
    pub(crate) mix: Mix,
    pub(crate) seed: u64,
    /// Processes whose processor time is reported.
    pub(crate) pids: Vec<u32>,
    /// When the events begin, as RFC 3339.
    pub(crate) starts_at: String,
}

/// The tokens that clients show.
pub(crate) struct Callers {
    /// CounterCheck for everybody.
    pub(crate) service: String,
    /// Puts events on sale and looks at counters.
    pub(crate) admin: String,
}

/// When the next request goes out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// As soon as the connection's last one was answered. Slow answers mean fewer requests.
    Closed,
    /// On a schedule, whatever became of the others. Latency counts from the scheduled instant, so that a
    /// server that stalls is charged for all who would have come meanwhile.
    Open {
        /// Requests per second, over all connections; at least 1.
        per_second: u32,
    },
}

/// A load under way.
struct Run {
    load: Load,
    /// Tells the users of this run from those of another.
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

/// What the servers said they have done, to be compared with their counters.
struct ExpectedCounts {
    /// Per event: bookings made, less bookings cancelled.
    live: Vec<AtomicI64>,
    /// Changes of which nobody knows whether they were made.
    unknown: AtomicU64,
}

impl Load {
    /// Runs the load to its end.
    pub(crate) async fn run(self) -> Result<Report, String> {
        let events = self.put_on_sale().await?;
        let began = Instant::now();
        let counted_from = began + self.warm_up;
        let run = Arc::new(Run {
            name: format!("{:08x}", fastrand::u32(..)),
            popularity: Popularity::new(events.len(), self.zipf),
            expected: ExpectedCounts {
                live: events.iter().map(|_| AtomicI64::new(0)).collect(),
                unknown: AtomicU64::new(0),
            },
            began,
            counted_from,
            ends: counted_from + self.duration,
            scheduled: AtomicU64::new(0),
            bookings: AtomicU64::new(0),
            tally: Tally::default(),
            events,
            load: self,
        });
        let mut workers = JoinSet::new();
        for number in 0..run.load.connections {
            workers.spawn(Worker::new(run.clone(), number)?.work());
        }
        sleep_until(run.counted_from).await;
        let before = Sample::take(&run.load).await;
        sleep_until(run.ends).await;
        let after = Sample::take(&run.load).await;
        workers.join_all().await;
        let counted = Instant::now() - run.counted_from;
        let counter_check = run.compare().await?;
        let run = Arc::into_inner(run).ok_or("a client is still at work")?;
        Ok(Report { counts: run.tally.into_counts(), counted, before, after, counter_check, load: run.load })
    }

    async fn put_on_sale(&self) -> Result<Vec<String>, String> {
        let mut organisers = JoinSet::new();
        let count = ORGANISERS.min(self.events);
        for number in 0..count {
            let mut client = self.admin(number)?;
            let share = self.events / count + usize::from(number < self.events % count);
            let body = json!({
                "name": "Bench", "venue": "Here", "startsAt": self.starts_at, "capacity": self.capacity,
                "price": {"amount": 4_500, "currency": "EUR"}, "holdSeconds": self.hold.as_secs(),
            });
            let body = body.to_string();
            organisers.spawn(async move {
                let mut made = Vec::with_capacity(share);
                for _ in 0..share {
                    let answer = client.ask(Method::POST, "/v1/events", Some(body.clone())).await?;
                    made.push(id_of(&answer, StatusCode::CREATED)?);
                }
                Ok::<_, String>(made)
            });
        }
        let made: Result<Vec<_>, _> = organisers.join_all().await.into_iter().collect();
        Ok(made?.into_iter().flatten().collect())
    }

    /// An organiser's client, of one of the targets.
    pub(super) fn admin(&self, number: usize) -> Result<Client, String> {
        Client::new(self.targets[number % self.targets.len()], &self.callers.admin)
    }
}

impl Run {
    /// When the next request is due; `None` when there is none any more. Waits until then.
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
            self.tally.drop_one();
        }
    }

    /// Compares what was told with the counters, event by event.
    async fn compare(self: &Arc<Self>) -> Result<CounterCheck, String> {
        let mut counter_check = CounterCheck {
            unknown: self.expected.unknown.load(Ordering::Relaxed),
            ..CounterCheck::default()
        };
        let mut client = self.load.admin(0)?;
        for (event, expected) in self.events.iter().zip(&self.expected.live) {
            let answer = client.ask(Method::GET, &format!("/v1/events/{event}/availability"), None).await?;
            let shown = answer.json();
            let count = |name: &str| shown[name].as_i64().ok_or_else(|| format!("no {name}: {shown}"));
            let (taken, capacity) = (count("held")? + count("sold")?, count("capacity")?);
            counter_check.oversold += u64::try_from(taken - capacity).unwrap_or(0);
            counter_check.difference += taken.abs_diff(expected.load(Ordering::Relaxed));
        }
        // Holds that fall due while clients work leave the counters without anybody being told.
        counter_check.comparable = self.load.hold > self.began.elapsed();
        Ok(counter_check)
    }
}

/// One client with one connection.
struct Worker {
    run: Arc<Run>,
    client: Client,
    rng: Rng,
    /// Bookings that this client has made and not settled yet, oldest first.
    open: VecDeque<Open>,
}

struct Open {
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

    async fn work(mut self) {
        while let Some(due) = self.run.due().await {
            let sent = Instant::now();
            let end = self.step().await;
            if due >= self.run.counted_from {
                self.run.tally.count(end, due.elapsed(), sent - due);
            }
        }
    }

    async fn step(&mut self) -> Outcome {
        loop {
            return match (self.run.load.mix.draw(&mut self.rng), self.open.is_empty()) {
                (Step::Look, _) => self.look().await,
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

    async fn look(&mut self) -> Outcome {
        let event = &self.run.events[self.run.popularity.draw(&mut self.rng)];
        let path = format!("/v1/events/{event}/availability");
        let answer = self.client.ask(Method::GET, &path, None).await;
        self.end(Step::Look, answer.as_ref())
    }

    async fn book(&mut self) -> Outcome {
        let run = self.run.clone();
        let event = run.popularity.draw(&mut self.rng);
        let number = run.bookings.fetch_add(1, Ordering::Relaxed);
        let number = run.load.users.map_or(number, |users| number % users);
        // Written by hand: nothing in it needs escaping, and the generator shares the servers' processors.
        let body = format!(
            r#"{{"eventId":"{}","ticketQuantity":1,"userId":"bench-{}-{number}"}}"#,
            run.events[event], run.name
        );
        let answer = self.client.ask(Method::POST, "/v1/bookings", Some(body)).await;
        let end = self.end(Step::Book, answer.as_ref());
        if let (Outcome::Done(_), Ok(answer)) = (&end, &answer) {
            run.expected.live[event].fetch_add(1, Ordering::Relaxed);
            if run.load.mix.settles()
                && let Ok(id) = id_of(answer, StatusCode::CREATED)
            {
                self.open.push_back(Open { id, event });
                if self.open.len() > OPEN_MAX {
                    self.open.pop_front();
                }
            }
        }
        end
    }

    async fn settle(&mut self, step: Step) -> Outcome {
        let Some(Open { id, event }) = self.open.pop_front() else { return self.book().await };
        let (verb, body) = match step {
            Step::Cancel => ("cancel", "{}".to_owned()),
            _ => ("confirm", format!(r#"{{"paymentTransactionId":"pay-{id}"}}"#)),
        };
        let answer = self.client.ask(Method::POST, &format!("/v1/bookings/{id}/{verb}"), Some(body)).await;
        let end = self.end(step, answer.as_ref());
        if matches!((&end, step), (Outcome::Done(_), Step::Cancel)) {
            self.run.expected.live[event].fetch_sub(1, Ordering::Relaxed);
        }
        end
    }

    /// What an answer means; counts a change of which nobody knows whether it was made.
    fn end(&self, step: Step, answer: Result<&Answer, &String>) -> Outcome {
        let end = match answer {
            Ok(answer) if answer.status.is_success() => Outcome::Done(step),
            Ok(answer) => {
                let code = answer.json()["code"].as_str().map(str::to_owned);
                Outcome::Refused(code.unwrap_or_else(|| answer.status.as_u16().to_string()))
            }
            Err(what) => Outcome::Broken(what.clone()),
        };
        let is_open = match &end {
            Outcome::Broken(_) => true,
            Outcome::Refused(code) => code == "outcome_unknown",
            Outcome::Done(_) => false,
        };
        if is_open && matches!(step, Step::Book | Step::Cancel) {
            self.run.expected.unknown.fetch_add(1, Ordering::Relaxed);
        }
        end
    }
}

/// The id in an answer, which must have this status.
fn id_of(answer: &Answer, status: StatusCode) -> Result<String, String> {
    let shown: Value = answer.json();
    let id = shown["id"].as_str().filter(|_| answer.status == status);
    id.map(str::to_owned).ok_or_else(|| format!("{}: {shown}", answer.status))
}
