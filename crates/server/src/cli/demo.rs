//! `boxoffice demo`: an on-sale in one process. Many people want few tickets, all at once; then each who
//! got one pays, gives it back or lets it expire; then the books are audited.
//!
//! Nothing is put on: it is the engine that serves, with limiter and lock, on a file that is written
//! through to the disk. Only the clock can be moved forward, so that nobody waits for a hold to expire.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use domain::{
    Actor, Answer, AuditReport, BookingId, Clock, Event, EventId, RequestId, TicketSelection, Timestamp,
    UserId,
};
use engine::{
    Caller, CapturedPayment, CommandOutput, Engine, Error, OrderRequest, QUEUE_MAX, RateLimited, Sweeper,
    SystemClock,
};
use futures_util::future::join_all;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use store::{Sqlite, SqliteOptions};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::dev::{put_on_sale, reader};
use super::{Failure, audit, embedded, print_output};
use crate::config::{Demo, LogFormat};
use crate::log;

/// Every so many-th buyer is impatient, and clicks so often at once: one more than the limit allows.
const IMPATIENT_EVERY: u32 = 10;
const CLICKS_PER_IMPATIENT_BUYER: usize = 6;
/// Most buyers at the door at once: with the clicks of the impatient, what the engine lets queue.
const CONCURRENT_BUYERS_MAX: usize = 10_000;
const _: () = assert!(
    CONCURRENT_BUYERS_MAX + CONCURRENT_BUYERS_MAX / 10 * 5 <= QUEUE_MAX,
    "nobody is turned away for the crowd alone"
);
/// Bookings that are paid for, or given back, at once.
const CONCURRENT_SETTLEMENTS_MAX: usize = 256;
/// How long a booking may stay unpaid, by the demonstration's clock.
const HOLD_SECONDS: u32 = 900;

/// The real time, and as much more as it was moved forward.
#[derive(Default)]
struct MovableClock {
    ahead_seconds: AtomicU32,
}

impl Clock for MovableClock {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus_seconds(self.ahead_seconds.load(Ordering::Relaxed))
    }
}

/// What became of one click.
enum Outcome {
    Booked(BookingId),
    Refused,
    Limited,
    Overloaded,
    Failed(String),
}

/// One click: when it was answered, and after how long.
struct BookingAttempt {
    outcome: Outcome,
    answered: Instant,
    waited: Duration,
}

/// What the rush at the start of sales came to.
#[derive(Default)]
struct SaleResult {
    /// Each booking, and the number of its buyer.
    booked: Vec<(BookingId, u32)>,
    /// Buyers who got nothing, because there was nothing left; or because the queue was full.
    refused: u32,
    overloaded: u32,
    /// Clicks that the limiter stopped.
    limited: u32,
    /// What broke, and for how many buyers.
    faults: BTreeMap<String, u32>,
    /// How long each answer took that the limiter did not give.
    waits: Vec<Duration>,
    /// From the first click to the last ticket.
    selling: Duration,
}

/// What became of the bookings in the end.
#[derive(Default)]
struct FinalCounts {
    confirmed: u32,
    cancelled: u32,
    expired: u64,
}

struct Report {
    buyers: u32,
    tickets: u32,
    rush: SaleResult,
    aftermath: FinalCounts,
    oversold: u64,
    audit: AuditReport,
}

pub(super) async fn run(args: &Demo) -> Result<ExitCode, Failure> {
    log::init(tracing::Level::WARN, LogFormat::Text);
    // Removed at the end, also when it is interrupted.
    let folder = tempfile::tempdir()?;
    let report = tokio::select! {
        report = show(args, folder.path()) => report?,
        _ = tokio::signal::ctrl_c() => return Err(Failure::Failed("interrupted".to_owned())),
    };
    if args.json {
        print_output(report.as_json());
    } else {
        report.print_output();
    }
    let is_good = report.oversold == 0 && report.audit.violations.is_empty() && report.rush.faults.is_empty();
    Ok(ExitCode::from(u8::from(!is_good)))
}

async fn show(args: &Demo, folder: &std::path::Path) -> Result<Report, Failure> {
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
    let rush = rush(&engine, event.id, args.buyers).await?;
    let after_rush = engine.event(&reader(), event.id).await?;
    let aftermath = settle(&engine, &rush.booked, &clock).await?;
    let after_all = engine.event(&reader(), event.id).await?;
    let audit = engine.audit().await?;
    engine.drain().await;
    let oversold = oversold(rush.booked.len() as u64, &[&after_rush, &after_all]);
    Ok(Report { buyers: args.buyers, tickets: args.tickets, rush, aftermath, oversold, audit })
}

/// Tickets that were given away beyond those there are: by what the buyers were told, and by the counters.
fn oversold(booked: u64, events: &[&Event]) -> u64 {
    let counted = events.iter().map(|event| {
        let taken = u64::from(event.inventory.held) + u64::from(event.inventory.sold);
        taken.max(booked).saturating_sub(event.inventory.capacity.into())
    });
    counted.max().unwrap_or(0)
}

/// Everybody wants a ticket at once.
async fn rush(engine: &Arc<Engine>, event: EventId, buyers: u32) -> Result<SaleResult, Failure> {
    let bar = progress("buyers", buyers.into());
    let began = Instant::now();
    let (mut rush, mut crowd, mut outside) = (SaleResult::default(), JoinSet::new(), 0..buyers);
    loop {
        while crowd.len() < CONCURRENT_BUYERS_MAX
            && let Some(number) = outside.next()
        {
            crowd.spawn(buyer(engine.clone(), event, number));
        }
        let Some(left) = crowd.join_next().await else { break };
        let (number, clicks) = left.map_err(|error| Failure::Failed(error.to_string()))?;
        rush.absorb(number, clicks, began);
        bar.inc(1);
    }
    bar.finish_and_clear();
    rush.waits.sort_unstable();
    Ok(rush)
}

/// One buyer, who wants one ticket; some click again before they are answered.
async fn buyer(engine: Arc<Engine>, event: EventId, number: u32) -> (u32, Vec<BookingAttempt>) {
    let is_impatient = number % IMPATIENT_EVERY == IMPATIENT_EVERY - 1;
    let clicks = if is_impatient { CLICKS_PER_IMPATIENT_BUYER } else { 1 };
    (number, join_all((0..clicks).map(|_| click(&engine, event, number))).await)
}

async fn click(engine: &Arc<Engine>, event_id: EventId, number: u32) -> BookingAttempt {
    let (user, began) = (user(number), Instant::now());
    let caller =
        Caller { actor: Actor::User(user.clone()), request: request(number), trace: None, deadline: None };
    let request = OrderRequest {
        event_id,
        user,
        selection: TicketSelection::Quantity(1),
        expected_total: None,
        payment_method: None,
    };
    let RateLimited { outcome, .. } = engine.book(caller, request, None).await;
    let outcome = match outcome {
        Ok(CommandOutput::Fresh(Answer::Booking(booking))) => Outcome::Booked(booking.id),
        Ok(other) => Outcome::Failed(format!("an unexpected answer: {other:?}")),
        Err(Error::Refused(_)) => Outcome::Refused,
        Err(Error::Limited(_)) => Outcome::Limited,
        Err(Error::Overloaded) => Outcome::Overloaded,
        Err(error @ (Error::KeyReused | Error::Fault(_))) => {
            Outcome::Failed(Failure::from(error).to_string())
        }
    };
    let answered = Instant::now();
    BookingAttempt { outcome, answered, waited: answered - began }
}

fn user(number: u32) -> UserId {
    format!("buyer-{number}").parse().unwrap_or_else(|_| unreachable!("a word and a number"))
}

fn request(number: u32) -> RequestId {
    format!("req_{number}").parse().unwrap_or_else(|_| unreachable!("a word and a number"))
}

impl SaleResult {
    /// Counts a buyer who has left the door.
    fn absorb(&mut self, number: u32, clicks: Vec<BookingAttempt>, began: Instant) {
        let (mut got_one, mut fault, mut overloaded) = (false, None, false);
        for click in clicks {
            match click.outcome {
                Outcome::Booked(booking) => {
                    got_one = true;
                    self.booked.push((booking, number));
                    self.selling = self.selling.max(click.answered - began);
                    self.waits.push(click.waited);
                }
                Outcome::Refused => self.waits.push(click.waited),
                Outcome::Limited => self.limited += 1,
                Outcome::Overloaded => overloaded = true,
                Outcome::Failed(what) => fault = Some(what),
            }
        }
        match (fault, got_one, overloaded) {
            (Some(what), ..) => *self.faults.entry(what).or_default() += 1,
            (None, true, _) => {}
            (None, false, true) => self.overloaded += 1,
            (None, false, false) => self.refused += 1,
        }
    }

    /// The wait that so many of a hundred answers did not exceed.
    fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.waits.len() * percent).div_ceil(100);
        self.waits.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    fn bookings_per_second(&self) -> f64 {
        let booked = u32::try_from(self.booked.len()).unwrap_or(u32::MAX);
        if self.selling.is_zero() { 0.0 } else { f64::from(booked) / self.selling.as_secs_f64() }
    }
}

/// Seven in ten bookings are paid for, two are given up, and one is forgotten.
async fn settle(
    engine: &Arc<Engine>,
    booked: &[(BookingId, u32)],
    clock: &MovableClock,
) -> Result<FinalCounts, Failure> {
    let bar = progress("bookings", booked.len() as u64);
    let (mut aftermath, mut counters, mut waiting) =
        (FinalCounts::default(), JoinSet::new(), booked.iter().enumerate());
    loop {
        while counters.len() < CONCURRENT_SETTLEMENTS_MAX
            && let Some((place, (booking, number))) = waiting.next()
        {
            let (engine, booking, number) = (engine.clone(), *booking, *number);
            match place % 10 {
                0..=6 => drop(counters.spawn(async move { (true, pay(&engine, booking, number).await) })),
                7 | 8 => {
                    drop(counters.spawn(async move { (false, give_up(&engine, booking, number).await) }));
                }
                _ => bar.inc(1),
            }
        }
        let Some(done) = counters.join_next().await else { break };
        let (was_payment, outcome) = done.map_err(|error| Failure::Failed(error.to_string()))?;
        outcome?;
        *(if was_payment { &mut aftermath.confirmed } else { &mut aftermath.cancelled }) += 1;
        bar.inc(1);
    }
    clock.ahead_seconds.store(HOLD_SECONDS + 1, Ordering::Relaxed);
    let swept = Sweeper::default().sweep(engine).await?;
    bar.finish_and_clear();
    if swept.failed > 0 {
        return Err(Failure::Failed(format!("{} overdue bookings could not be freed", swept.failed)));
    }
    aftermath.expired = swept.bookings;
    Ok(aftermath)
}

async fn pay(engine: &Arc<Engine>, booking: BookingId, number: u32) -> Result<CommandOutput, Error> {
    let gateway = "gateway".parse().unwrap_or_else(|_| unreachable!("a word"));
    let caller =
        Caller { actor: Actor::Service(gateway), request: request(number), trace: None, deadline: None };
    let transaction = format!("pay-{booking}").parse().unwrap_or_else(|_| unreachable!("a word and an id"));
    engine.confirm(caller, booking, CapturedPayment { transaction, amount: None }, None).await
}

async fn give_up(engine: &Arc<Engine>, booking: BookingId, number: u32) -> Result<CommandOutput, Error> {
    let caller =
        Caller { actor: Actor::User(user(number)), request: request(number), trace: None, deadline: None };
    engine.cancel(caller, booking, None, None).await.outcome
}

/// A bar on standard error; nothing where no person looks at it.
fn progress(what: &'static str, count: u64) -> ProgressBar {
    // Drawn on standard error, and only where that is a terminal. Without colours.
    let style = ProgressStyle::with_template("{msg:9} [{bar:40}] {human_pos} of {human_len}");
    let style = style.unwrap_or_else(|_| unreachable!("the template is sound"));
    ProgressBar::new(count).with_style(style.progress_chars("=> ")).with_message(what)
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 100_000.0).round() / 100.0
}

impl Report {
    fn as_json(&self) -> Value {
        let Self { buyers, tickets, rush, aftermath, oversold, audit } = self;
        json!({
            "buyers": buyers, "tickets": tickets,
            "sold": rush.booked.len(), "oversold": oversold,
            "refused": rush.refused, "overloaded": rush.overloaded,
            "failed": rush.faults.values().sum::<u32>(), "limitedAttempts": rush.limited,
            "bookingsPerSecond": rush.bookings_per_second().round(),
            "sellingMillis": millis(rush.selling),
            "latencyMillis": {"p50": millis(rush.percentile(50)), "p99": millis(rush.percentile(99))},
            "confirmed": aftermath.confirmed, "cancelled": aftermath.cancelled, "expired": aftermath.expired,
            "clean": audit.violations.is_empty(), "audit": audit::as_json(audit),
        })
    }

    fn print_output(&self) {
        let Self { buyers, tickets, rush, aftermath, oversold, audit } = self;
        let line = |name: &str, text: std::fmt::Arguments<'_>| print_output(format_args!("{name:10}{text}"));
        let (sold, selling) = (rush.booked.len(), rush.selling.as_secs_f64());
        let speed = rush.bookings_per_second();
        line("sold", format_args!("{sold} of {tickets} tickets in {selling:.2} s, {speed:.0} bookings/s"));
        line("oversold", format_args!("{oversold}"));
        line("refused", format_args!("{} of {buyers} buyers: nothing was left", rush.refused));
        line("limited", format_args!("{} clicks of impatient buyers", rush.limited));
        if rush.overloaded > 0 {
            line("overload", format_args!("{} buyers were told to come back later", rush.overloaded));
        }
        for (what, buyers) in &rush.faults {
            line("failed", format_args!("{buyers} buyers: {what}"));
        }
        let (p50, p99) = (millis(rush.percentile(50)), millis(rush.percentile(99)));
        let crowd = CONCURRENT_BUYERS_MAX.min(*buyers as usize);
        line("latency", format_args!("p50 {p50} ms, p99 {p99} ms, with {crowd} buyers at once"));
        let FinalCounts { confirmed, cancelled, expired } = aftermath;
        line("then", format_args!("{confirmed} confirmed, {cancelled} cancelled, {expired} expired"));
        audit::print_report(audit);
    }
}
