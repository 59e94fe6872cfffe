//! Ledger entries, refunds and statistics on the wire.

use std::str::FromStr;

use domain::{
    BookingId, Currency, Entry, EntryKind, EntryLine, EventId, LedgerStatus, Name, Refund, RefundId,
    RefundReason, RefundStatus, Tallies, TicketTypeId, Timestamp,
};
use schemars::{JsonSchema, Schema, json_schema};
use serde::{Deserialize, Serialize};
use store::Stats;

use super::schema::{As, Extensible, TextSchema};
use super::{MoneyView, ParsedText};

/// A ledger entry as it is shown.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "LedgerEntry")]
pub(crate) struct EntryView<'a> {
    /// Its number in the ledger of the event, from 1 without a gap.
    event_seq: u64,
    /// What happened.
    #[serde(rename = "type")]
    #[schemars(with = "Extensible<EntryKind>")]
    kind: &'static str,
    /// The booking that changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "As<BookingId>")]
    booking_id: Option<BookingId>,
    /// The refund that was recorded or settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "As<RefundId>")]
    refund_id: Option<RefundId>,
    /// The tickets that moved, per ticket type; empty where none did.
    items: Vec<LedgerItemView>,
    /// The tickets that moved, all together, without a sign; for entries of the event itself, by how much its
    /// capacity changed.
    quantity: u32,
    /// The status before; absent where there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Extensible<LedgerStatus>")]
    from: Option<&'static str>,
    /// The status after; absent where none is concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Extensible<LedgerStatus>")]
    to: Option<&'static str>,
    /// Tickets of the event left after this change.
    available_after: u32,
    /// The number of the booking's entry before this one; absent for its first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64")]
    previous_seq: Option<u64>,
    /// On whose behalf: `system`, or a role, a colon and a user.
    actor: String,
    /// The request that caused it.
    request_id: &'a str,
    /// When; never before the entry with the number below.
    #[schemars(with = "As<Timestamp>")]
    at: Timestamp,
}

/// How many tickets of one type moved.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "LedgerItem")]
struct LedgerItemView {
    /// Which ticket type.
    #[schemars(with = "As<TicketTypeId>")]
    ticket_type_id: TicketTypeId,
    /// How many tickets.
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
            from: entry.from.map(domain::LedgerStatus::as_str),
            to: entry.to.map(domain::LedgerStatus::as_str),
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
pub(crate) struct SettleRequest {
    /// What became of the pay-out. `failed` may later become `succeeded`, never the other way round.
    pub(crate) outcome: ParsedText<SettlementOutcome>,
    /// The payment provider's name for the pay-out.
    pub(crate) provider_reference: ParsedText<Name>,
}

/// What became of a pay-out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SettlementOutcome {
    Succeeded,
    Failed,
}

impl FromStr for SettlementOutcome {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
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
            "type": "string", "description": "What became of a pay-out.", "enum": ["succeeded", "failed"],
        })
    }
}

impl SettlementOutcome {
    pub(crate) fn succeeded(self) -> bool {
        matches!(self, Self::Succeeded)
    }
}

/// The body of `GET /v1/stats`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Stats")]
pub(crate) struct StatsView {
    /// Bookings in all.
    total_bookings: u64,
    /// Those that hold tickets unpaid.
    pending_bookings: u64,
    /// Those that are paid.
    confirmed_bookings: u64,
    /// Those that were given up.
    cancelled_bookings: u64,
    /// Those that were freed unpaid.
    expired_bookings: u64,
    /// Confirmed totals less recorded refunds, per currency.
    revenue: Vec<RevenueView>,
}

/// The revenue in one currency.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Revenue")]
struct RevenueView {
    /// Minor units; below zero where more was given back than taken.
    amount: i128,
    /// A currency of ISO 4217.
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

/// A refund as it is shown.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Refund")]
pub(crate) struct RefundView<'a> {
    /// Names the refund for its whole life.
    #[schemars(with = "As<RefundId>")]
    id: RefundId,
    /// The booking that was paid for.
    #[schemars(with = "As<BookingId>")]
    booking_id: BookingId,
    /// The event of that booking.
    #[schemars(with = "As<EventId>")]
    event_id: EventId,
    /// The captured payment.
    payment_transaction_id: &'a str,
    /// How much is to be given back.
    amount: MoneyView,
    /// Whether it was paid out.
    #[schemars(with = "As<RefundStatus>")]
    status: &'static str,
    /// Why it is owed.
    #[schemars(with = "Extensible<RefundReason>")]
    reason: &'static str,
    /// The payment provider's name for the pay-out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    provider_reference: Option<&'a str>,
    /// When it was recorded.
    #[schemars(with = "As<Timestamp>")]
    created_at: Timestamp,
    /// When its outcome was recorded.
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
            provider_reference: refund.provider_reference.as_ref().map(domain::Text::as_str),
            created_at: refund.created_at,
            settled_at: refund.settled_at,
        }
    }
}
