//! A journal of acknowledged changes, which is checked against the server afterwards.
//!
//! Per booking it has the last acknowledged state, and the one change, if any, that got no response. An
//! acknowledged change must persist; one without a response may have been made or not; no other change may
//! have been made.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::client::id_of;
use crate::{Client, Response};

/// The responses to the clients of one load.
#[derive(Debug, Default)]
pub struct Journal {
    bookings: BTreeMap<String, Record>,
    /// Requests to book without a response, per event.
    pending_creates: BTreeMap<String, usize>,
    /// Number of refusals and faults, by code.
    refusals: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Record {
    event: String,
    status: String,
    version: u64,
    /// The status after a change without a response.
    pending: Option<&'static str>,
}

impl Journal {
    /// Number of acknowledged bookings.
    pub fn len(&self) -> usize {
        self.bookings.len()
    }

    /// True if no booking was acknowledged.
    pub fn is_empty(&self) -> bool {
        self.bookings.is_empty()
    }

    /// Number of refusals and faults with this code.
    pub fn refusals(&self, code: &str) -> u64 {
        self.refusals.get(code).copied().unwrap_or_default()
    }

    /// The codes of all refusals and faults.
    pub fn codes(&self) -> BTreeSet<&str> {
        self.refusals.keys().map(String::as_str).collect()
    }

    /// Adds the entries of a journal about other bookings.
    pub fn merge(&mut self, other: Self) {
        self.bookings.extend(other.bookings);
        for (event, count) in other.pending_creates {
            *self.pending_creates.entry(event).or_default() += count;
        }
        for (code, count) in other.refusals {
            *self.refusals.entry(code).or_default() += count;
        }
    }

    /// Records that a request to book is sent.
    pub(crate) fn record_create_request(&mut self, event: &str) {
        *self.pending_creates.entry(event.to_owned()).or_default() += 1;
    }

    /// Records its response; returns the id of the booking if it was created.
    pub(crate) fn record_create_response(&mut self, event: &str, response: &Response) -> Option<String> {
        if self.is_conclusive(response) {
            *self.pending_creates.entry(event.to_owned()).or_default() -= 1;
        }
        if response.status != hyper::StatusCode::CREATED {
            return None;
        }
        let booking = response.json();
        let id = id_of(&booking);
        let (status, version) = state(&booking);
        let record = Record { event: event.to_owned(), status: status.to_owned(), version, pending: None };
        self.bookings.insert(id.clone(), record);
        Some(id)
    }

    /// Records that a request to change a booking to `status` is sent.
    pub(crate) fn record_change_request(&mut self, booking: &str, status: &'static str) {
        self.record(booking).pending = Some(status);
    }

    /// Records its response; true if the change was made.
    pub(crate) fn record_change_response(&mut self, booking: &str, response: &Response) -> bool {
        let is_made = response.status == hyper::StatusCode::OK;
        if is_made {
            let body = response.json();
            let (status, version) = state(&body);
            let record = self.record(booking);
            assert_eq!(Some(status), record.pending, "{response:?}");
            assert!(version > record.version, "{response:?} after {record:?}");
            (record.status, record.version) = (status.to_owned(), version);
        }
        if self.is_conclusive(response) {
            self.record(booking).pending = None;
        }
        is_made
    }

    /// True if the outcome is known from the response. Counts refusals and faults.
    fn is_conclusive(&mut self, response: &Response) -> bool {
        if response.status.is_success() {
            return true;
        }
        let code = response.code();
        let is_conclusive = code != "outcome_unknown";
        *self.refusals.entry(code).or_default() += 1;
        is_conclusive
    }

    fn record(&mut self, booking: &str) -> &mut Record {
        self.bookings.get_mut(booking).expect("a changed booking was created before")
    }

    /// Reads all bookings and compares them with the journal; panics on a difference. Only clients of this
    /// journal may have booked the events. `client` is a service or an admin.
    pub async fn check(&self, client: &mut Client) {
        let mut violations = Vec::new();
        let events = self.bookings.values().map(|record| &record.event).chain(self.pending_creates.keys());
        for event in events.collect::<BTreeSet<_>>() {
            let rows = client.all(&format!("/v1/bookings?eventId={event}")).await;
            let found: BTreeMap<String, &Value> = rows.iter().map(|row| (id_of(row), row)).collect();
            let recorded = self.bookings.iter().filter(|(_, record)| record.event == *event);
            violations
                .extend(recorded.filter_map(|(id, record)| record.violation(id, found.get(id).copied())));
            let unknown = found.keys().filter(|id| !self.bookings.contains_key(*id)).count();
            let pending = self.pending_creates.get(event).copied().unwrap_or_default();
            if unknown > pending {
                violations.push(format!(
                    "{event}: {unknown} unacknowledged bookings, but {pending} requests without a response"
                ));
            }
        }
        assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
    }
}

impl Record {
    /// The difference between a booking as read and as acknowledged, if it is a violation.
    fn violation(&self, id: &str, found: Option<&Value>) -> Option<String> {
        let Some(found) = found else { return Some(format!("{id} is lost: {self:?}")) };
        let (status, version) = state(found);
        let is_unchanged = status == self.status && version == self.version;
        let is_pending_change = self.pending == Some(status) && version == self.version + 1;
        (!is_unchanged && !is_pending_change)
            .then(|| format!("{id} is {status} at version {version}: {self:?}"))
    }
}

fn state(booking: &Value) -> (&str, u64) {
    let status = booking["status"].as_str().unwrap_or_else(|| panic!("no status: {booking}"));
    (status, booking["version"].as_u64().unwrap_or_else(|| panic!("no version: {booking}")))
}
