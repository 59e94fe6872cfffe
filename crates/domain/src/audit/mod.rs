//! The audit: derives every count and every amount again from the ledger and the bookings, and compares.
//!
//! It judges what the database holds, whoever wrote it, and keeps little of it: one event's counters and one
//! booking's history at a time. So an event is read twice: its ledger in order ([`ledger`]), and its bookings,
//! each with its own entries and refunds ([`history`]). Used by the program, and by the tests at the end of
//! everything they do.

mod history;
mod ledger;

pub use self::history::History;
use self::ledger::EventReplay;
use crate::{Booking, Entry, Event, UserId};

/// Violations reported one by one; more are only counted, so that a report has a bounded size.
const VIOLATIONS_MAX: usize = 10_000;

/// What the audit found, and how much it looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// Events looked at.
    pub events: u64,
    /// Bookings looked at.
    pub bookings: u64,
    /// Ledger entries replayed.
    pub entries: u64,
    /// Refunds looked at.
    pub refunds: u64,
    /// Every contradiction, in words; empty when the replay are clean. At most 10,000, and then one line that
    /// says how many more there are.
    pub violations: Vec<String>,
}

/// An audit in progress. For each event: [`Audit::event`], its entries in order ([`Audit::entry`]), then its
/// bookings ([`Audit::history`]) and its users ([`Audit::user`]) in any order; at the end [`Audit::finish`].
#[derive(Debug, Default)]
pub struct Audit {
    report: AuditReport,
    omitted: u64,
    replay: Option<EventReplay>,
}

impl Audit {
    /// Begins with an event, and closes the one before.
    pub fn event(&mut self, event: Event) {
        self.close();
        self.report.events += 1;
        self.replay = Some(EventReplay::new(event));
    }

    /// The next ledger entry of the event, and the booking's row where this is the entry that created it.
    pub fn entry(&mut self, entry: &Entry, created: Option<&Booking>) {
        self.report.entries += 1;
        let Some(replay) = &mut self.replay else { return };
        let mut wrong = replay.apply(entry);
        if let Some(booking) = created {
            wrong.extend(replay.check_prices(booking));
        }
        let place = |what: String| format!("{} entry {}: {what}", entry.event_id, entry.seq);
        self.add(wrong.into_iter().map(place));
    }

    /// A booking of the event: all its entries, its row and its refunds.
    pub fn history(&mut self, history: &History) {
        let Some(replay) = &mut self.replay else { return };
        self.report.bookings += u64::from(history.booking_of(replay.event().id).is_some());
        self.report.refunds += history.refunds.len() as u64;
        let wrong = history.check(replay);
        self.add(wrong);
    }

    /// How many live tickets of the event a user holds by the bookings and the ledger, and the stored count, if
    /// there is one. Only for events with a limit per user.
    pub fn user(&mut self, user: &UserId, holds: u64, counted: Option<u32>) {
        let Some(replay) = &self.replay else { return };
        let Some(limit) = replay.event().details.max_tickets_per_user else { return };
        let event = replay.event().id;
        if holds > u64::from(limit) {
            self.add([format!("{event}: user {user} holds {holds} tickets, more than the {limit} allowed")]);
        }
        match counted {
            None if holds > 0 => self.add([format!("{event}: user {user} holds tickets and is not counted")]),
            Some(tickets) if u64::from(tickets) != holds => self
                .add([format!("{event}: user {user} is counted with {tickets} tickets and holds {holds}")]),
            None | Some(_) => {}
        }
    }

    /// A row that cannot be read.
    pub fn unreadable(&mut self, what: impl std::fmt::Display) {
        self.add([format!("unreadable: {what}")]);
    }

    /// Closes the last event and compares with the number of rows that the database counts in all.
    pub fn finish(mut self, bookings: u64, entries: u64, refunds: u64) -> AuditReport {
        self.close();
        let seen = [self.report.bookings, self.report.entries, self.report.refunds];
        for (what, seen, stored) in [
            ("bookings that their ledger leads to", seen[0], bookings),
            ("ledger entries that an event leads to", seen[1], entries),
            ("refunds that their booking leads to", seen[2], refunds),
        ] {
            if seen != stored {
                self.add([format!("{stored} rows are stored, but only {seen} {what}")]);
            }
        }
        if self.omitted > 0 {
            self.report.violations.push(format!("{} more violations are left out", self.omitted));
        }
        self.report
    }

    fn close(&mut self) {
        if let Some(replay) = self.replay.take() {
            let event = replay.event().id;
            self.add(replay.close().into_iter().map(|what| format!("{event}: {what}")));
        }
    }

    fn add(&mut self, wrong: impl IntoIterator<Item = String>) {
        for what in wrong {
            if self.report.violations.len() < VIOLATIONS_MAX {
                self.report.violations.push(what);
            } else {
                self.omitted += 1;
            }
        }
    }
}
