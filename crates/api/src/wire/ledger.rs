//! JSON types of ledger entries, refunds and statistics.

use std::str::FromStr;

use domain::{
    BookingId, Currency, Entry, EntryKind, EntryLine, EventId, LedgerStatus, ProviderReference, Refund,
    RefundId, RefundReason, RefundStatus, Tallies, TicketTypeId, Timestamp,
};
use schemars::{JsonSchema, Schema, json_schema};
use serde::{Deserialize, Serialize};
use store::Stats;

use super::schema::{As, Extensible, TextSchema};
use super::{MoneyView, ParsedText};

/// A ledger entry.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "LedgerEntry")]
pub struct EntryView<'a> {
    /// The sequence number in the ledger of the event, from 1 without gaps.
    event_seq: u64,
    /// The kind of the entry.
    #[serde(rename = "type")]
    #[schemars(with = "Extensible<EntryKind>")]
    kind: &'a str,
    /// The booking that was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "As<BookingId>")]
    booking_id: Option<BookingId>,
    /// The refund that was recorded or settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "As<RefundId>")]
    refund_id: Option<RefundId>,
    /// The tickets whose state changed, per ticket type; empty if there are none.
    items: Vec<LedgerItemView>,
    /// The number of tickets whose state changed, without a sign; for an entry about the event itself, the
    /// change of its capacity.
    quantity: u32,
    /// The status before; absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Extensible<LedgerStatus>")]
    from: Option<&'a str>,
    /// The status after; absent if the entry is not about a status.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Extensible<LedgerStatus>")]
    to: Option<&'a str>,
    /// Number of available tickets of the event after this change.
    available_after: u32,
    /// The sequence number of the booking's previous entry; absent for its first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64")]
    previous_seq: Option<u64>,
    /// The actor: `system`, or a role, a colon and a user.
    actor: String,
    /// The id of the request that caused it.
    request_id: &'a str,
    /// The time; never before that of the entry with the preceding sequence number.
    #[schemars(with = "As<Timestamp>")]
    at: Timestamp,
}

/// The number of tickets of one type in a ledger entry.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "LedgerItem")]
struct LedgerItemView {
    /// The ticket type.
    #[schemars(with = "As<TicketTypeId>")]
    ticket_type_id: TicketTypeId,
    /// Number of tickets.
    quantity: u32,
}

impl<'a> From<&'a Entry> for EntryView<'a> {
    fn from(entry: &'a Entry) -> Self {
        let line =
            |line: &EntryLine| LedgerItemView { ticket_type_id: line.ticket_type, quantity: line.quantity };
        Self {
            event_seq: entry.seq,
            kind: entry.kind.as_str(),
            booking_id: entry.booking_id,
            refund_id: entry.refund_id,
            items: entry.lines.iter().map(line).collect(),
            quantity: entry.quantity,
            from: entry.from_status(),
            to: entry.to_status(),
            available_after: entry.available_after,
            previous_seq: entry.previous_seq,
            actor: entry.actor.to_string(),
            request_id: entry.request.as_str(),
            at: entry.at,
        }
    }
}

/// The body of `POST /v1/refunds/{id}/settle`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "SettleRefund")]
pub struct SettleRequest {
    /// The outcome of the pay-out. `failed` can later become `succeeded`, but not the reverse.
    pub outcome: ParsedText<SettlementOutcome>,
    /// The payment provider's id of the pay-out.
    pub provider_reference: ParsedText<ProviderReference>,
}

/// The outcome of a pay-out.
#[derive(Clone, Copy, Debug)]
pub enum SettlementOutcome {
    Succeeded,
    Failed,
}

impl FromStr for SettlementOutcome {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "succeeded" => Ok(Self::Succeeded),
            "failed" => Ok(Self::Failed),
            _ => Err("must be succeeded or failed"),
        }
    }
}

impl TextSchema for SettlementOutcome {
    const NAME: Option<&'static str> = Some("SettlementOutcome");

    fn schema() -> Schema {
        json_schema!({
            "type": "string", "description": "The outcome of a pay-out.", "enum": ["succeeded", "failed"],
        })
    }
}

impl SettlementOutcome {
    pub fn succeeded(self) -> bool {
        matches!(self, Self::Succeeded)
    }
}

/// The response body of `GET /v1/stats`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Stats")]
pub struct StatsView {
    /// Total number of bookings.
    total_bookings: u64,
    /// Number of unpaid bookings that hold tickets.
    pending_bookings: u64,
    /// Number of paid bookings.
    confirmed_bookings: u64,
    /// Number of cancelled bookings.
    cancelled_bookings: u64,
    /// Number of bookings that expired unpaid.
    expired_bookings: u64,
    /// Totals of confirmed bookings minus recorded refunds, per currency.
    revenue: Vec<RevenueView>,
}

/// The revenue in one currency.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Revenue")]
struct RevenueView {
    /// In minor units; negative if more was refunded than received.
    amount: i128,
    /// The ISO 4217 code of the currency.
    #[schemars(with = "As<Currency>")]
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

/// A refund.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Refund")]
pub struct RefundView<'a> {
    /// The id of the refund, which never changes.
    #[schemars(with = "As<RefundId>")]
    id: RefundId,
    /// The booking whose payment is refunded.
    #[schemars(with = "As<BookingId>")]
    booking_id: BookingId,
    /// The event of that booking.
    #[schemars(with = "As<EventId>")]
    event_id: EventId,
    /// The payment provider's id of the captured payment.
    payment_transaction_id: &'a str,
    /// The amount to refund.
    amount: MoneyView,
    /// The status of the pay-out.
    #[schemars(with = "As<RefundStatus>")]
    status: &'static str,
    /// The reason for the refund.
    #[schemars(with = "Extensible<RefundReason>")]
    reason: &'static str,
    /// The payment provider's id of the pay-out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    provider_reference: Option<&'a str>,
    /// The time at which the refund was recorded.
    #[schemars(with = "As<Timestamp>")]
    created_at: Timestamp,
    /// The time at which its outcome was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "As<Timestamp>")]
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
            provider_reference: refund.provider_reference.as_ref().map(ProviderReference::as_str),
            created_at: refund.created_at,
            settled_at: refund.settled_at,
        }
    }
}
