//! `boxoffice demo`: an on-sale in one process. Many buyers request few tickets at the same time. Then each
//! booking is paid, cancelled or left to expire, and the database is audited.
//!
//! The demo runs the same engine as `serve`, with limiter and lock, on a file with durable commits. Only the
//! clock differs: it can be moved forward, so that holds expire at once.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use domain::{
    Actor, Answer, AuditReport, BookingId, CapturedPayment, Clock, Event, EventId, Order, RequestId,
    TicketSelection, Timestamp, UserId,
};
use engine::{Caller, CommandOutput, Engine, Error, RateLimitedResult, Sweeper, SystemClock};
use futures_util::future::join_all;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use store::{Sqlite, SqliteOptions};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::dev::{put_on_sale, reader};
use super::{Failure, audit, embedded, print_output};
use crate::config::{Demo, LogFormat};
use crate::limit::{CONCURRENT_BUYERS_MAX, CONCURRENT_SETTLEMENTS_MAX};
use crate::log;

/// One of this many buyers is impatient.
const IMPATIENT_EVERY: u32 = 10;
/// Concurrent requests of an impatient buyer: one more than the rate limit allows.
const CLICKS_PER_IMPATIENT_BUYER: usize = 6;
/// Lifetime of an unpaid booking, by the demo's clock.
const HOLD_SECONDS: u32 = 900;

/// A clock that is ahead of the system clock by an adjustable time.
#[derive(Default)]
struct MovableClock {
    ahead_seconds: AtomicU32,
}

impl Clock for MovableClock {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus_seconds(self.ahead_seconds.load(Ordering::Relaxed))
    }
}

/// The outcome of a click.
enum Outcome {
    Booked(BookingId),
    Refused,
    Limited,
    Overloaded,
    Failed(String),
}

/// The result of one click, which sends one booking request.
struct Click {
    outcome: Outcome,
    finished: Instant,
    latency: Duration,
}

/// The result of the on-sale.
#[derive(Default)]
struct SaleResult {
    /// Bookings, each with the number of its buyer.
    booked: Vec<(BookingId, u32)>,
    /// Number of buyers without a ticket because the event was sold out.
    refused: u32,
    /// Number of buyers without a ticket because the queue was full.
    overloaded: u32,
    /// Number of clicks that the rate limiter denied.
    limited: u32,
    /// Number of buyers by fault.
    faults: BTreeMap<String, u32>,
    /// Latencies of all clicks that the rate limiter did not deny.
    latencies: Vec<Duration>,
    /// Time from the first click to the last booking.
    sale_time: Duration,
}

/// The number of bookings in each final status.
#[derive(Default)]
struct FinalCounts {
    confirmed: u32,
    cancelled: u32,
    expired: u64,
}

struct Report {
    buyers: u32,
    tickets: u32,
    sale: SaleResult,
    counts: FinalCounts,
    oversold: u64,
    audit: AuditReport,
}

pub(super) async fn run(args: &Demo) -> Result<ExitCode, Failure> {
    log::init(tracing::Level::WARN, LogFormat::Text);
    // Removed at the end, also on an interrupt.
    let folder = tempfile::tempdir()?;
    let report = tokio::select! {
        report = run_demo(args, folder.path()) => report?,
        _ = tokio::signal::ctrl_c() => return Err(Failure::Failed("interrupted".to_owned())),
    };
    if args.json {
        print_output(report.as_json());
    } else {
        report.print();
    }
    let is_success =
        report.oversold == 0 && report.audit.violations.is_empty() && report.sale.faults.is_empty();
    Ok(ExitCode::from(u8::from(!is_success)))
}

async fn run_demo(args: &Demo, folder: &std::path::Path) -> Result<Report, Failure> {
    let clock = Arc::new(MovableClock::default());
    let options = SqliteOptions { clock: clock.clone(), inline: false };
    let store = Sqlite::open(&folder.join("boxoffice.db"), true, &options)?;
    let engine = embedded::engine(Arc::new(store), clock.clone());
    let event = put_on_sale(&engine, |event| {
        event.capacity = args.tickets;
        event.hold_seconds = HOLD_SECONDS;
        event.max_tickets_per_user = Some(1);
    })
    .await?;
    let sale = run_sale(&engine, event.id, args.buyers).await?;
    let after_sale = engine.event(&reader(), event.id).await?;
    let counts = settle_bookings(&engine, &sale.booked, &clock).await?;
    let at_end = engine.event(&reader(), event.id).await?;
    let audit = engine.audit().await?;
    engine.drain().await;
    let oversold = oversold(sale.booked.len() as u64, &[&after_sale, &at_end]);
    Ok(Report { buyers: args.buyers, tickets: args.tickets, sale, counts, oversold, audit })
}

/// Returns the number of tickets beyond the capacity, by the responses to buyers or by the counters,
/// whichever is greater.
fn oversold(booked: u64, events: &[&Event]) -> u64 {
    let excess = events.iter().map(|event| {
        let taken = u64::from(event.inventory.held) + u64::from(event.inventory.sold);
        taken.max(booked).saturating_sub(event.inventory.capacity.into())
    });
    excess.max().unwrap_or(0)
}

/// Runs all buyers, as many at once as [`CONCURRENT_BUYERS_MAX`].
async fn run_sale(engine: &Arc<Engine>, event: EventId, buyers: u32) -> Result<SaleResult, Failure> {
    let bar = progress_bar("buyers", buyers.into());
    let began = Instant::now();
    let (mut sale, mut running, mut numbers) = (SaleResult::default(), JoinSet::new(), 0..buyers);
    loop {
        while running.len() < CONCURRENT_BUYERS_MAX
            && let Some(number) = numbers.next()
        {
            running.spawn(buyer(engine.clone(), event, number));
        }
        let Some(finished) = running.join_next().await else { break };
        let (number, clicks) = finished.map_err(|error| Failure::Failed(error.to_string()))?;
        sale.record(number, clicks, began);
        bar.inc(1);
    }
    bar.finish_and_clear();
    sale.latencies.sort_unstable();
    Ok(sale)
}

/// Runs one buyer, who books one ticket. Impatient buyers send several requests at once.
async fn buyer(engine: Arc<Engine>, event: EventId, number: u32) -> (u32, Vec<Click>) {
    let is_impatient = number % IMPATIENT_EVERY == IMPATIENT_EVERY - 1;
    let clicks = if is_impatient { CLICKS_PER_IMPATIENT_BUYER } else { 1 };
    (number, join_all((0..clicks).map(|_| click(&engine, event, number))).await)
}

async fn click(engine: &Arc<Engine>, event_id: EventId, number: u32) -> Click {
    let (user, began) = (user(number), Instant::now());
    let caller =
        Caller { actor: Actor::User(user.clone()), request: request(number), trace: None, deadline: None };
    let order = Order::new(event_id, engine.booking_id(), user, TicketSelection::Quantity(1));
    let RateLimitedResult { outcome, .. } = engine.book(caller, order, None).await;
    let outcome = match outcome {
        Ok(CommandOutput::Fresh(Answer::Booking(booking))) => Outcome::Booked(booking.id),
        Ok(other) => Outcome::Failed(format!("unexpected result: {other:?}")),
        Err(Error::Refused(_)) => Outcome::Refused,
        Err(Error::Limited(_)) => Outcome::Limited,
        Err(Error::Overloaded) => Outcome::Overloaded,
        Err(error @ (Error::KeyReused | Error::Fault(_))) => {
            Outcome::Failed(Failure::from(error).to_string())
        }
    };
    let finished = Instant::now();
    Click { outcome, finished, latency: finished - began }
}

fn user(number: u32) -> UserId {
    format!("buyer-{number}").parse().unwrap_or_else(|_| unreachable!("a word and a number"))
}

fn request(number: u32) -> RequestId {
    format!("req_{number}").parse().unwrap_or_else(|_| unreachable!("a word and a number"))
}

impl SaleResult {
    /// Records the clicks of one buyer.
    fn record(&mut self, number: u32, clicks: Vec<Click>, began: Instant) {
        let (mut has_booked, mut fault, mut overloaded) = (false, None, false);
        for click in clicks {
            match click.outcome {
                Outcome::Booked(booking) => {
                    has_booked = true;
                    self.booked.push((booking, number));
                    self.sale_time = self.sale_time.max(click.finished - began);
                    self.latencies.push(click.latency);
                }
                Outcome::Refused => self.latencies.push(click.latency),
                Outcome::Limited => self.limited += 1,
                Outcome::Overloaded => overloaded = true,
                Outcome::Failed(cause) => fault = Some(cause),
            }
        }
        match (fault, has_booked, overloaded) {
            (Some(cause), ..) => *self.faults.entry(cause).or_default() += 1,
            (None, true, _) => {}
            (None, false, true) => self.overloaded += 1,
            (None, false, false) => self.refused += 1,
        }
    }

    /// Returns a percentile of the latencies.
    fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.latencies.len() * percent).div_ceil(100);
        self.latencies.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    fn bookings_per_second(&self) -> f64 {
        let booked = u32::try_from(self.booked.len()).unwrap_or(u32::MAX);
        if self.sale_time.is_zero() { 0.0 } else { f64::from(booked) / self.sale_time.as_secs_f64() }
    }
}

/// Pays seven in ten bookings, cancels two, and lets one expire.
async fn settle_bookings(
    engine: &Arc<Engine>,
    booked: &[(BookingId, u32)],
    clock: &MovableClock,
) -> Result<FinalCounts, Failure> {
    let bar = progress_bar("bookings", booked.len() as u64);
    let (mut counts, mut running, mut remaining) =
        (FinalCounts::default(), JoinSet::new(), booked.iter().enumerate());
    loop {
        while running.len() < CONCURRENT_SETTLEMENTS_MAX
            && let Some((index, (booking, number))) = remaining.next()
        {
            let (engine, booking, number) = (engine.clone(), *booking, *number);
            match index % 10 {
                0..=6 => drop(running.spawn(async move { (true, pay(&engine, booking, number).await) })),
                7 | 8 => {
                    drop(running.spawn(async move { (false, cancel(&engine, booking, number).await) }));
                }
                _ => bar.inc(1),
            }
        }
        let Some(finished) = running.join_next().await else { break };
        let (is_payment, result) = finished.map_err(|error| Failure::Failed(error.to_string()))?;
        result?;
        *(if is_payment { &mut counts.confirmed } else { &mut counts.cancelled }) += 1;
        bar.inc(1);
    }
    clock.ahead_seconds.store(HOLD_SECONDS + 1, Ordering::Relaxed);
    let swept = Sweeper::default().sweep(engine).await?;
    bar.finish_and_clear();
    if swept.failed > 0 {
        return Err(Failure::Failed(format!("{} overdue bookings could not be expired", swept.failed)));
    }
    counts.expired = swept.bookings;
    Ok(counts)
}

async fn pay(engine: &Arc<Engine>, booking: BookingId, number: u32) -> Result<CommandOutput, Error> {
    let gateway = "gateway".parse().unwrap_or_else(|_| unreachable!("a word"));
    let caller =
        Caller { actor: Actor::Service(gateway), request: request(number), trace: None, deadline: None };
    let transaction = format!("pay-{booking}").parse().unwrap_or_else(|_| unreachable!("a word and an id"));
    engine.confirm(caller, booking, CapturedPayment { transaction, amount: None }, None).await
}

async fn cancel(engine: &Arc<Engine>, booking: BookingId, number: u32) -> Result<CommandOutput, Error> {
    let caller =
        Caller { actor: Actor::User(user(number)), request: request(number), trace: None, deadline: None };
    engine.cancel(caller, booking, None, None).await.outcome
}

/// Returns a progress bar on standard error, without colours. It is drawn only on a terminal.
fn progress_bar(label: &'static str, count: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:9} [{bar:40}] {human_pos} of {human_len}");
    let style = style.unwrap_or_else(|_| unreachable!("the template is valid"));
    ProgressBar::new(count).with_style(style.progress_chars("=> ")).with_message(label)
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 100_000.0).round() / 100.0
}

impl Report {
    fn as_json(&self) -> Value {
        let Self { buyers, tickets, sale, counts, oversold, audit } = self;
        json!({
            "buyers": buyers, "tickets": tickets,
            "sold": sale.booked.len(), "oversold": oversold,
            "refused": sale.refused, "overloaded": sale.overloaded,
            "failed": sale.faults.values().sum::<u32>(), "limitedAttempts": sale.limited,
            "bookingsPerSecond": sale.bookings_per_second().round(),
            "sellingMillis": millis(sale.sale_time),
            "latencyMillis": {"p50": millis(sale.percentile(50)), "p99": millis(sale.percentile(99))},
            "confirmed": counts.confirmed, "cancelled": counts.cancelled, "expired": counts.expired,
            "clean": audit.violations.is_empty(), "audit": audit::as_json(audit),
        })
    }

    fn print(&self) {
        let Self { buyers, tickets, sale, counts, oversold, audit } = self;
        let line = |name: &str, text: std::fmt::Arguments<'_>| print_output(format_args!("{name:10}{text}"));
        let (sold, seconds) = (sale.booked.len(), sale.sale_time.as_secs_f64());
        let rate = sale.bookings_per_second();
        line("sold", format_args!("{sold} of {tickets} tickets in {seconds:.2} s, {rate:.0} bookings/s"));
        line("oversold", format_args!("{oversold}"));
        line("refused", format_args!("{} of {buyers} buyers: sold out", sale.refused));
        line("limited", format_args!("{} repeated requests of impatient buyers", sale.limited));
        if sale.overloaded > 0 {
            line("overload", format_args!("{} buyers: queue full, retry later", sale.overloaded));
        }
        for (cause, buyers) in &sale.faults {
            line("failed", format_args!("{buyers} buyers: {cause}"));
        }
        let (p50, p99) = (millis(sale.percentile(50)), millis(sale.percentile(99)));
        let concurrent = CONCURRENT_BUYERS_MAX.min(*buyers as usize);
        line("latency", format_args!("p50 {p50} ms, p99 {p99} ms, with {concurrent} concurrent buyers"));
        let FinalCounts { confirmed, cancelled, expired } = counts;
        line("bookings", format_args!("{confirmed} confirmed, {cancelled} cancelled, {expired} expired"));
        audit::print_report(audit);
    }
}
