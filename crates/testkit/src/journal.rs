//! What clients were told, and whether it is still true.
//!
//! Kept per booking: the last state that was acknowledged, and the one change, if any, whose answer never
//! came. An acknowledged change must stand; one without an answer may or may not; nothing else may have
//! happened.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::client::id_of;
use crate::{Client, Response};

/// What the clients of one load were told.
#[derive(Debug, Default)]
pub struct Journal {
    bookings: BTreeMap<String, Record>,
    /// Attempts to book whose answer never came, per event.
    open_creates: BTreeMap<String, usize>,
    /// How often each refusal or fault was heard, by its code.
    refusals: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Record {
    event: String,
    status: String,
    version: u64,
    /// The status that a change without an answer would have led to.
    open: Option<&'static str>,
}

impl Journal {
    /// Bookings that were acknowledged.
    pub fn len(&self) -> usize {
        self.bookings.len()
    }

    /// Whether no booking was acknowledged.
    pub fn is_empty(&self) -> bool {
        self.bookings.is_empty()
    }

    /// How often an answer had this code.
    pub fn refusals(&self, code: &str) -> u64 {
        self.refusals.get(code).copied().unwrap_or_default()
    }

    /// The codes of all refusals and faults that were heard.
    pub fn codes(&self) -> BTreeSet<&str> {
        self.refusals.keys().map(String::as_str).collect()
    }

    /// Takes over what another one knows about other bookings.
    pub fn merge(&mut self, other: Self) {
        self.bookings.extend(other.bookings);
        for (event, count) in other.open_creates {
            *self.open_creates.entry(event).or_default() += count;
        }
        for (code, count) in other.refusals {
            *self.refusals.entry(code).or_default() += count;
        }
    }

    /// An attempt to book has gone out.
    pub(crate) fn creating(&mut self, event: &str) {
        *self.open_creates.entry(event.to_owned()).or_default() += 1;
    }

    /// It was answered; the booking, where it was made.
    pub(crate) fn created(&mut self, event: &str, answer: &Response) -> Option<String> {
        if self.settles(answer) {
            *self.open_creates.entry(event.to_owned()).or_default() -= 1;
        }
        if answer.status != hyper::StatusCode::CREATED {
            return None;
        }
        let booking = answer.json();
        let id = id_of(&booking);
        let (status, version) = state(&booking);
        let record = Record { event: event.to_owned(), status: status.to_owned(), version, open: None };
        self.bookings.insert(id.clone(), record);
        Some(id)
    }

    /// A change that would lead to `status` has gone out.
    pub(crate) fn changing(&mut self, booking: &str, status: &'static str) {
        self.record(booking).open = Some(status);
    }

    /// It was answered; whether it was made.
    pub(crate) fn changed(&mut self, booking: &str, answer: &Response) -> bool {
        let made = answer.status == hyper::StatusCode::OK;
        if made {
            let shown = answer.json();
            let (status, version) = state(&shown);
            let record = self.record(booking);
            assert_eq!(Some(status), record.open, "{answer:?}");
            assert!(version > record.version, "{answer:?} after {record:?}");
            (record.status, record.version) = (status.to_owned(), version);
        }
        if self.settles(answer) {
            self.record(booking).open = None;
        }
        made
    }

    /// Whether an answer leaves nothing open; counts it where it is no success.
    fn settles(&mut self, answer: &Response) -> bool {
        if answer.status.is_success() {
            return true;
        }
        let code = answer.code();
        let settled = code != "outcome_unknown";
        *self.refusals.entry(code).or_default() += 1;
        settled
    }

    fn record(&mut self, booking: &str) -> &mut Record {
        self.bookings.get_mut(booking).expect("a booking is changed after it was made")
    }

    /// Reads everything back and compares. The events must have been booked by clients of this journal
    /// only. `client` is a service or an admin.
    pub async fn check(&self, client: &mut Client) {
        let mut wrong = Vec::new();
        let events = self.bookings.values().map(|record| &record.event).chain(self.open_creates.keys());
        for event in events.collect::<BTreeSet<_>>() {
            let rows = client.all(&format!("/v1/bookings?eventId={event}")).await;
            let found: BTreeMap<String, &Value> = rows.iter().map(|row| (id_of(row), row)).collect();
            let known = self.bookings.iter().filter(|(_, record)| record.event == *event);
            wrong.extend(known.filter_map(|(id, record)| record.breach(id, found.get(id).copied())));
            let strangers = found.keys().filter(|id| !self.bookings.contains_key(*id)).count();
            let open = self.open_creates.get(event).copied().unwrap_or_default();
            if strangers > open {
                wrong.push(format!("{event}: {strangers} bookings nobody was told of, {open} unanswered"));
            }
        }
        assert!(wrong.is_empty(), "{} promises broken:\n{}", wrong.len(), wrong.join("\n"));
    }
}

impl Record {
    /// How a booking as found breaks what was acknowledged.
    fn breach(&self, id: &str, found: Option<&Value>) -> Option<String> {
        let Some(found) = found else { return Some(format!("{id} is lost: {self:?}")) };
        let (status, version) = state(found);
        let as_told = status == self.status && version == self.version;
        let one_later = self.open == Some(status) && version == self.version + 1;
        (!as_told && !one_later).then(|| format!("{id} is {status} at version {version}: {self:?}"))
    }
}

fn state(booking: &Value) -> (&str, u64) {
    let status = booking["status"].as_str().unwrap_or_else(|| panic!("no status: {booking}"));
    (status, booking["version"].as_u64().unwrap_or_else(|| panic!("no version: {booking}")))
}
