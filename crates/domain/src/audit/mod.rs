//! The audit: derives every count and every amount again from the ledger and the bookings, and compares them
//! with the stored ones.
//!
//! It checks the contents of the database, whatever wrote them, and keeps little of it in memory: the
//! counters of one event and the history of one booking at a time. An event is therefore read twice: its
//! ledger in order ([`ledger`]), and its bookings, each with its own entries and refunds ([`history`]). The
//! program uses the audit, and so do the tests at their end.
//!
//! An entry of a kind that this version does not know may explain any state of its event, and of the booking
//! that it names. So the audit only checks its number and its date, does not verify what it may explain, and
//! counts it in the report. A booking that no such entry names is verified.

mod history;
mod ledger;

use std::collections::BTreeMap;

pub use self::history::History;
use self::ledger::EventReplay;
use crate::limit::UNKNOWN_KINDS_MAX;
use crate::{Booking, Entry, Event, UserId};

/// Maximum number of violations that are reported individually. Further ones are only counted, so that a
/// report has a bounded size.
const VIOLATIONS_MAX: usize = 10_000;

/// The name under which a report counts kinds beyond [`UNKNOWN_KINDS_MAX`]. No kind has this name.
const OTHER_KINDS: &str = "other kinds";

/// The violations that the audit found, and the number of audited rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// Number of audited events.
    pub events: u64,
    /// Number of audited bookings.
    pub bookings: u64,
    /// Number of replayed ledger entries.
    pub entries: u64,
    /// Number of ledger entries of each kind that this version does not know. Only their numbers and dates
    /// were checked, and neither the event nor the booking that they belong to could be verified. Further
    /// kinds than [`UNKNOWN_KINDS_MAX`] are counted together as `other kinds`.
    pub unknown_kinds: BTreeMap<String, u64>,
    /// Number of audited refunds.
    pub refunds: u64,
    /// A text for each violation; empty if the audit finds nothing. At most 10,000, followed by one line with
    /// the number of the others.
    pub violations: Vec<String>,
}

impl AuditReport {
    /// True if everything was verified, without a violation.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && self.unknown_kinds.is_empty()
    }
}

/// An audit in progress. For each event call [`Audit::event`], then [`Audit::entry`] for its entries in
/// order, then [`Audit::history`] for its bookings and [`Audit::user`] for its users in any order; at the end
/// call [`Audit::finish`].
#[derive(Debug, Default)]
pub struct Audit {
    report: AuditReport,
    omitted: u64,
    replay: Option<EventReplay>,
}

impl Audit {
    /// Starts with an event, and closes the previous one.
    pub fn event(&mut self, event: Event) {
        self.close();
        self.report.events += 1;
        self.replay = Some(EventReplay::new(event));
    }

    /// Audits the next ledger entry of the event. `created` is the booking's row if this entry created the
    /// booking.
    pub fn entry(&mut self, entry: &Entry, created: Option<&Booking>) {
        self.report.entries += 1;
        let Some(replay) = &mut self.replay else { return };
        let violations = replay.apply(entry);
        if let Some(booking) = created {
            replay.check_prices(booking);
        }
        let locate = |what: String| format!("{} entry {}: {what}", entry.event_id, entry.seq);
        self.add(violations.into_iter().map(locate));
        if entry.kind.known().is_none() {
            self.count_unknown_kind(entry.kind.as_str());
        }
    }

    /// Audits a booking of the event: all its entries, its row and its refunds.
    pub fn history(&mut self, history: &History) {
        let Some(replay) = &mut self.replay else { return };
        self.report.bookings += u64::from(history.booking_of(replay.event().id).is_some());
        self.report.refunds += history.refunds.len() as u64;
        let violations = history.check(replay);
        self.add(violations);
    }

    /// Audits a user of an event with a limit per user: `holds` is the number of live tickets of the event
    /// that the user has according to the bookings and the ledger, `counted` the stored count, if there is
    /// one.
    pub fn user(&mut self, user: &UserId, holds: u64, counted: Option<u32>) {
        let Some(replay) = self.replay.as_ref().filter(|replay| replay.is_interpreted()) else { return };
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

    /// Reports a row that cannot be decoded.
    pub fn unreadable(&mut self, what: impl std::fmt::Display) {
        self.add([format!("unreadable: {what}")]);
    }

    /// Closes the last event, compares the numbers of audited rows with the numbers of rows in the database,
    /// and returns the report.
    pub fn finish(mut self, bookings: u64, entries: u64, refunds: u64) -> AuditReport {
        self.close();
        let seen = [self.report.bookings, self.report.entries, self.report.refunds];
        for (what, seen, stored) in [
            ("bookings are reachable from their ledger", seen[0], bookings),
            ("ledger entries are reachable from an event", seen[1], entries),
            ("refunds are reachable from their booking", seen[2], refunds),
        ] {
            if seen != stored {
                self.add([format!("{stored} rows are stored, but only {seen} {what}")]);
            }
        }
        if self.omitted > 0 {
            self.report.violations.push(format!("{} more violations are omitted", self.omitted));
        }
        self.report
    }

    fn close(&mut self) {
        if let Some(replay) = self.replay.take() {
            let event = replay.event().id;
            self.add(replay.close().into_iter().map(|what| format!("{event}: {what}")));
        }
    }

    fn count_unknown_kind(&mut self, kind: &str) {
        let kinds = &mut self.report.unknown_kinds;
        let is_listed = kinds.contains_key(kind) || kinds.len() < UNKNOWN_KINDS_MAX;
        *kinds.entry(if is_listed { kind } else { OTHER_KINDS }.to_owned()).or_default() += 1;
    }

    fn add(&mut self, violations: impl IntoIterator<Item = String>) {
        for what in violations {
            if self.report.violations.len() < VIOLATIONS_MAX {
                self.report.violations.push(what);
            } else {
                self.omitted += 1;
            }
        }
    }
}
