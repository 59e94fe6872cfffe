//! The clean-up: frees unpaid bookings whose time has passed.
//!
//! It submits expire commands and never cancels, so no user's limit, ownership or cut-off can stand in its
//! way, and no lock is taken twice. It does not wait for a booking that somebody is confirming or cancelling
//! right now: that one is left for the next round, once, and then the database decides.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use coordination::{Key, LockOptions};
use domain::{Action, Actor, Answer, BookingId, RequestId};
use futures_util::future::join_all;
use store::{DueHold, Fault};

use super::Chore;
use super::backoff::Backoff;
use crate::limit::{CHORE_PAGE, SKIPS_MAX};
use crate::{Caller, CommandOutput, Engine, Error};

/// What a round has freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Bookings that expired.
    pub bookings: u64,
    /// Tickets they held.
    pub tickets: u64,
    /// Overdue bookings that could not be expired; they are tried again, ever more rarely.
    pub failed: u64,
}

/// The clean-up, and what it remembers from round to round.
#[derive(Debug, Default)]
pub struct Sweeper {
    /// How often a booking was left alone because somebody held its lock.
    skipped: HashMap<BookingId, u8>,
    /// Bookings that could not be expired.
    backoff: Backoff,
}

impl Sweeper {
    /// One round: every hold that is overdue now, page by page.
    pub async fn sweep(&mut self, engine: &Arc<Engine>) -> Result<SweepReport, Error> {
        let request = super::request(engine, "sweep");
        // The store's clock alone says what is due: instances that share it may each have another time.
        let far_ahead = engine.now().plus_seconds(u32::MAX);
        let mut skipped = std::mem::take(&mut self.skipped);
        self.backoff.begin_run();
        let mut report = SweepReport::default();
        let mut after = None;
        loop {
            let page = engine.ports.store.due_holds(far_ahead, after, CHORE_PAGE).await?;
            after = page.last().copied();
            // Only what is still due is remembered: whatever was paid meanwhile is forgotten with the old round.
            let known = page.iter().filter_map(|hold| skipped.remove_entry(&hold.booking));
            self.skipped.extend(known);
            self.expire(engine, &request, &page, &mut report).await;
            if page.len() < CHORE_PAGE as usize {
                return Ok(report);
            }
        }
    }

    async fn expire(
        &mut self,
        engine: &Arc<Engine>,
        request: &RequestId,
        page: &[DueHold],
        report: &mut SweepReport,
    ) {
        let is_due = |hold: &&DueHold| self.backoff.is_due(hold.event, hold.booking);
        let due: Vec<DueHold> = page.iter().filter(is_due).copied().collect();
        // Held until the page is done, so that nobody begins to work on what is being expired.
        let (free, _guards) = self.lock_idle_holds(engine, due).await;
        let expiries = free.iter().map(|hold| {
            let caller =
                Caller { actor: Actor::System, request: request.clone(), trace: None, deadline: None };
            let action = Action::Expire { event_id: hold.event, booking_id: hold.booking };
            engine.submit(caller, action, None)
        });
        for (hold, answer) in free.iter().zip(join_all(expiries).await) {
            match answer {
                Ok(CommandOutput::Fresh(Answer::Booking(booking))) => {
                    report.bookings += 1;
                    report.tickets += u64::from(booking.items.quantity());
                    self.backoff.record_success(hold.event, hold.booking);
                }
                // Somebody was faster, or the turn did not come: nothing to do, or next round.
                Ok(CommandOutput::Fresh(_) | CommandOutput::Stored { .. }) | Err(Error::Refused(_)) => {
                    self.backoff.record_success(hold.event, hold.booking);
                }
                Err(Error::Fault(Fault::Broken(cause))) => {
                    report.failed += 1;
                    tracing::error!(booking = %hold.booking, %cause, "an overdue booking cannot be expired");
                    self.backoff.record_failure(hold.event, hold.booking);
                }
                Err(error) => {
                    report.failed += 1;
                    tracing::warn!(booking = %hold.booking, %error, "an overdue booking was not expired yet");
                }
            }
        }
    }

    /// The holds that nobody is working on, and the locks that keep it so. Without a lock service all are
    /// free: the database decides in any case.
    async fn lock_idle_holds(
        &mut self,
        engine: &Engine,
        due: Vec<DueHold>,
    ) -> (Vec<DueHold>, Vec<coordination::LockGuard>) {
        let keys = due.iter().map(|hold| Key::new("booking", &hold.booking.to_string()));
        let Ok(keys) = keys.collect::<Result<Vec<_>, _>>() else { return (due, Vec::new()) };
        let guards = engine.ports.lock.try_acquire_each(&keys, LockOptions::default()).await;
        let Ok(guards) = guards else { return (due, Vec::new()) };
        let mut free = Vec::with_capacity(due.len());
        let mut held_guards = Vec::with_capacity(due.len());
        for (hold, guard) in due.into_iter().zip(guards) {
            let skipped = self.skipped.get(&hold.booking).copied().unwrap_or(0);
            if guard.is_none() && skipped < SKIPS_MAX {
                self.skipped.insert(hold.booking, skipped + 1);
                continue;
            }
            self.skipped.remove(&hold.booking);
            free.push(hold);
            held_guards.extend(guard);
        }
        (free, held_guards)
    }
}

#[async_trait]
impl Chore for Sweeper {
    fn name(&self) -> &'static str {
        "sweeper"
    }

    async fn run_once(&mut self, engine: &Arc<Engine>) -> Result<(), Error> {
        let report = self.sweep(engine).await?;
        if report.bookings > 0 {
            tracing::info!(bookings = report.bookings, tickets = report.tickets, "freed overdue bookings");
        }
        Ok(())
    }
}
