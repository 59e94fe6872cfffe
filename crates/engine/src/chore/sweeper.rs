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
use super::parked::Parked;
use crate::limit::{CHORE_PAGE, POSTPONED_MAX};
use crate::{Caller, Engine, Error, Given};

/// What a round has freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
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
    postponed: HashMap<BookingId, u8>,
    /// Bookings that could not be expired.
    parked: Parked,
}

impl Sweeper {
    /// One round: every hold that is overdue now, page by page.
    pub async fn sweep(&mut self, engine: &Arc<Engine>) -> Result<Swept, Error> {
        let request = super::request(engine, "sweep");
        // The store's clock alone says what is due: instances that share it may each have another time.
        let far_ahead = engine.now().plus_seconds(u32::MAX);
        let mut postponed = std::mem::take(&mut self.postponed);
        self.parked.begin_run();
        let mut swept = Swept::default();
        let mut after = None;
        loop {
            let page = engine.ports.store.due_holds(far_ahead, after, CHORE_PAGE).await?;
            after = page.last().copied();
            // Only what is still due is remembered: whatever was paid meanwhile is forgotten with the old round.
            let known = page.iter().filter_map(|hold| postponed.remove_entry(&hold.booking));
            self.postponed.extend(known);
            self.expire(engine, &request, &page, &mut swept).await;
            if page.len() < CHORE_PAGE as usize {
                return Ok(swept);
            }
        }
    }

    async fn expire(
        &mut self,
        engine: &Arc<Engine>,
        request: &RequestId,
        page: &[DueHold],
        swept: &mut Swept,
    ) {
        let is_due = |hold: &&DueHold| self.parked.is_due(hold.event, hold.booking);
        let due: Vec<DueHold> = page.iter().filter(is_due).copied().collect();
        // Held until the page is done, so that nobody begins to work on what is being expired.
        let (free, _turns) = self.without_busy(engine, due).await;
        let expiries = free.iter().map(|hold| {
            let caller =
                Caller { actor: Actor::System, request: request.clone(), trace: None, gives_up: None };
            let action = Action::Expire { event_id: hold.event, booking_id: hold.booking };
            engine.submit(caller, action, None)
        });
        for (hold, answer) in free.iter().zip(join_all(expiries).await) {
            match answer {
                Ok(Given::Fresh(Answer::Booking(booking))) => {
                    swept.bookings += 1;
                    swept.tickets += u64::from(booking.items.quantity());
                    self.parked.done(hold.event, hold.booking);
                }
                // Somebody was faster, or the turn did not come: nothing to do, or next round.
                Ok(Given::Fresh(_) | Given::Kept { .. }) | Err(Error::Refused(_)) => {
                    self.parked.done(hold.event, hold.booking);
                }
                Err(Error::Fault(Fault::Broken(cause))) => {
                    swept.failed += 1;
                    tracing::error!(booking = %hold.booking, %cause, "an overdue booking cannot be expired");
                    self.parked.failed(hold.event, hold.booking);
                }
                Err(error) => {
                    swept.failed += 1;
                    tracing::warn!(booking = %hold.booking, %error, "an overdue booking was not expired yet");
                }
            }
        }
    }

    /// The holds that nobody is working on, and the locks that keep it so. Without a lock service all are
    /// free: the database decides in any case.
    async fn without_busy(
        &mut self,
        engine: &Engine,
        due: Vec<DueHold>,
    ) -> (Vec<DueHold>, Vec<coordination::LockGuard>) {
        let keys = due.iter().map(|hold| Key::new("booking", &hold.booking.to_string()));
        let Ok(keys) = keys.collect::<Result<Vec<_>, _>>() else { return (due, Vec::new()) };
        let tenures = engine.ports.lock.try_acquire_each(&keys, LockOptions::default()).await;
        let Ok(tenures) = tenures else { return (due, Vec::new()) };
        let mut free = Vec::with_capacity(due.len());
        let mut turns = Vec::with_capacity(due.len());
        for (hold, tenure) in due.into_iter().zip(tenures) {
            let postponed = self.postponed.get(&hold.booking).copied().unwrap_or(0);
            if tenure.is_none() && postponed < POSTPONED_MAX {
                self.postponed.insert(hold.booking, postponed + 1);
                continue;
            }
            self.postponed.remove(&hold.booking);
            free.push(hold);
            turns.extend(tenure);
        }
        (free, turns)
    }
}

#[async_trait]
impl Chore for Sweeper {
    fn name(&self) -> &'static str {
        "sweeper"
    }

    async fn run_once(&mut self, engine: &Arc<Engine>) -> Result<(), Error> {
        let swept = self.sweep(engine).await?;
        if swept.bookings > 0 {
            tracing::info!(bookings = swept.bookings, tickets = swept.tickets, "freed overdue bookings");
        }
        Ok(())
    }
}
