//! The clean-up: frees unpaid bookings whose hold has expired.
//!
//! It submits expire commands and not cancellations, so no user's limit, ownership or cut-off can stop it,
//! and no lock is acquired twice. It does not wait for a booking that another request is confirming or
//! cancelling: such a booking is skipped once, and in the next round the database resolves the conflict.

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

/// The result of one round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Number of bookings that expired.
    pub bookings: u64,
    /// Number of tickets that these bookings held.
    pub tickets: u64,
    /// Number of overdue bookings that could not be expired; they are retried with backoff.
    pub failed: u64,
}

/// The clean-up, with its state between rounds.
#[derive(Debug, Default)]
pub struct Sweeper {
    /// The number of times that a booking was skipped because its lock was held.
    skipped: HashMap<BookingId, u8>,
    /// Backoff for bookings that could not be expired.
    backoff: Backoff,
}

impl Sweeper {
    /// One round: expires every hold that is overdue now, page by page.
    pub async fn sweep(&mut self, engine: &Arc<Engine>) -> Result<SweepReport, Error> {
        let request = super::request(engine, "sweep");
        // Only the store's clock determines which holds are due: the clocks of instances may differ.
        let far_ahead = engine.now().plus_seconds(u32::MAX);
        let mut skipped = std::mem::take(&mut self.skipped);
        self.backoff.begin_run();
        let mut report = SweepReport::default();
        let mut after = None;
        loop {
            let page = engine.ports.store.due_holds(far_ahead, after, CHORE_PAGE).await?;
            after = page.last().copied();
            // Only holds that are still due are carried over; the entries of others are dropped with the old
            // map.
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
        // The locks are held until the page is done, so that no request starts to work on a booking that
        // expires.
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
                // Another command was faster: nothing to do.
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

    /// The holds that no other request has locked, and the guards of their locks. Without a lock service
    /// these are all holds: the database resolves conflicts in any case.
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
