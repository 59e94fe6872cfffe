//! Ledger entries, refunds and statistics on the wire.

use std::str::FromStr;

use domain::{
    BookingId, Currency, Entry, EventId, Line, Name, Refund, RefundId, Tallies, TicketTypeId, Timestamp,
};
use serde::{Deserialize, Serialize};
use store::Stats;

use super::{MoneyView, Parsed};

/// A ledger entry as it is shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EntryView<'a> {
    event_seq: u64,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    booking_id: Option<BookingId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refund_id: Option<RefundId>,
    items: Vec<LineView>,
    quantity: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'static str>,
    available_after: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_seq: Option<u64>,
    actor: String,
    request_id: &'a str,
    at: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LineView {
    ticket_type_id: TicketTypeId,
    quantity: u32,
}

impl<'a> From<&'a Entry> for EntryView<'a> {
    fn from(entry: &'a Entry) -> Self {
        let line = |line: &Line| LineView { ticket_type_id: line.ticket_type, quantity: line.quantity };
        Self {
            event_seq: entry.seq,
            kind: entry.kind.as_str(),
            booking_id: entry.booking_id,
            refund_id: entry.refund_id,
            items: entry.lines.iter().map(line).collect(),
            quantity: entry.quantity,
            from: entry.from.map(domain::Label::as_str),
            to: entry.to.map(domain::Label::as_str),
            available_after: entry.available_after,
            previous_seq: entry.previous_seq,
            actor: entry.actor.to_string(),
            request_id: entry.request.as_str(),
            at: entry.at,
        }
    }
}

/// The body of `POST /v1/refunds/{id}/settle`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SettleRequest {
    pub(crate) outcome: Parsed<Outcome>,
    pub(crate) provider_reference: Parsed<Name>,
}

/// What became of a pay-out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    Succeeded,
    Failed,
}

impl FromStr for Outcome {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "succeeded" => Ok(Self::Succeeded),
            "failed" => Ok(Self::Failed),
            _ => Err("must be succeeded or failed"),
        }
    }
}

impl Outcome {
    pub(crate) fn succeeded(self) -> bool {
        matches!(self, Self::Succeeded)
    }
}

/// The body of `GET /v1/stats`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatsView {
    total_bookings: u64,
    pending_bookings: u64,
    confirmed_bookings: u64,
    cancelled_bookings: u64,
    expired_bookings: u64,
    revenue: Vec<RevenueView>,
}

#[derive(Serialize)]
struct RevenueView {
    amount: i128,
    currency: &'static str,
}

impl From<&Stats> for StatsView {
    fn from(stats: &Stats) -> Self {
        let all = stats.per_currency.iter().fold(Tallies::default(), |sum, (_, tallies)| sum.plus(*tallies));
        let revenue = |(currency, tallies): &(Currency, Tallies)| RevenueView {
            amount: tallies.revenue,
            currency: currency.code(),
        };
        Self {
            total_bookings: all.pending + all.confirmed + all.cancelled + all.expired,
            pending_bookings: all.pending,
            confirmed_bookings: all.confirmed,
            cancelled_bookings: all.cancelled,
            expired_bookings: all.expired,
            revenue: stats.per_currency.iter().map(revenue).collect(),
        }
    }
}

/// A refund as it is shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RefundView<'a> {
    id: RefundId,
    booking_id: BookingId,
    event_id: EventId,
    payment_transaction_id: &'a str,
    amount: MoneyView,
    status: &'static str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_reference: Option<&'a str>,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_at: Option<Timestamp>,
}

impl<'a> From<&'a Refund> for RefundView<'a> {
    fn from(refund: &'a Refund) -> Self {
        Self {
            id: refund.id,
            booking_id: refund.booking_id,
            event_id: refund.event_id,
            payment_transaction_id: refund.transaction.as_str(),
            amount: refund.amount.into(),
            status: refund.status.as_str(),
            reason: refund.reason.as_str(),
            provider_reference: refund.provider_reference.as_ref().map(domain::Text::as_str),
            created_at: refund.created_at,
            settled_at: refund.settled_at,
        }
    }
}
