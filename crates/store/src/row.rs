//! Conversion between rows and values, as far as it is the same for every database.
//!
//! Stored data is not trusted: an unknown status, an impossible combination of columns or a number out of
//! range is an error that names the row, never a default.

use domain::{
    Booking, Currency, EntryLine, Item, Items, Money, Name, Payment, State, TicketTypeId, Timestamp,
    TransactionId,
};
use serde_json::{Value, json};

use crate::Cause;

/// The stored row of a booking.
pub(crate) struct BookingRow {
    pub(crate) id: [u8; 16],
    pub(crate) event_id: [u8; 16],
    pub(crate) user_id: String,
    pub(crate) status: String,
    pub(crate) version: u32,
    pub(crate) last_seq: u64,
    pub(crate) items: String,
    pub(crate) currency: String,
    pub(crate) total: i64,
    pub(crate) hold_expires_at: i64,
    pub(crate) payment_method: Option<String>,
    pub(crate) transaction_id: Option<String>,
    pub(crate) confirmed_at: Option<i64>,
    pub(crate) cancelled_at: Option<i64>,
    pub(crate) cancellation_reason: Option<String>,
    pub(crate) refunded: bool,
    pub(crate) expired_at: Option<i64>,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
}

impl TryFrom<BookingRow> for Booking {
    type Error = Cause;

    fn try_from(row: BookingRow) -> Result<Self, Cause> {
        let id = domain::BookingId::from_bytes(row.id);
        let wrong = |detail: &dyn std::fmt::Display| Cause::new(format!("booking {id}: {detail}"));
        let payment = match (row.transaction_id, row.confirmed_at) {
            (Some(transaction), Some(at)) => {
                let transaction: TransactionId = transaction.parse().map_err(|e| wrong(&e))?;
                Some(Payment { transaction, at: time(at).map_err(|e| wrong(&e))? })
            }
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err(wrong(&"has only one of transaction and payment time"));
            }
        };
        let cancelled_at = row.cancelled_at.map(time).transpose().map_err(|e| wrong(&e))?;
        let expired_at = row.expired_at.map(time).transpose().map_err(|e| wrong(&e))?;
        let state = match (row.status.as_str(), payment, cancelled_at, expired_at) {
            ("pending", None, None, None) => State::Pending,
            ("confirmed", Some(payment), None, None) => State::Confirmed(payment),
            ("cancelled", payment, Some(at), None) => {
                let reason = row.cancellation_reason.map(|reason| reason.parse()).transpose();
                State::Cancelled {
                    at,
                    reason: reason.map_err(|e| wrong(&e))?,
                    payment,
                    refunded: row.refunded,
                }
            }
            ("expired", None, None, Some(at)) => State::Expired { at },
            (status, ..) => return Err(wrong(&format!("status {status} contradicts its dates"))),
        };
        let currency: Currency = row.currency.parse().map_err(|e| wrong(&e))?;
        Ok(Self {
            id,
            event_id: domain::EventId::from_bytes(row.event_id),
            user: row.user_id.parse().map_err(|e| wrong(&e))?,
            items: items_from(&row.items, currency).map_err(|e| wrong(&e))?,
            total: Money::new(row.total, currency).map_err(|e| wrong(&e))?,
            hold_expires_at: time(row.hold_expires_at).map_err(|e| wrong(&e))?,
            payment_method: row.payment_method.map(|text| text.parse()).transpose().map_err(|e| wrong(&e))?,
            state,
            version: row.version,
            last_seq: row.last_seq,
            created_at: time(row.created_at).map_err(|e| wrong(&e))?,
            updated_at: time(row.updated_at).map_err(|e| wrong(&e))?,
        })
    }
}

/// The columns of a booking that change, except its status, version, last entry and time of update.
pub(crate) struct StateColumns<'a> {
    pub(crate) transaction_id: Option<&'a str>,
    pub(crate) confirmed_at: Option<i64>,
    pub(crate) cancelled_at: Option<i64>,
    pub(crate) cancellation_reason: Option<&'a str>,
    pub(crate) refunded: bool,
    pub(crate) expired_at: Option<i64>,
}

impl<'a> From<&'a Booking> for StateColumns<'a> {
    fn from(booking: &'a Booking) -> Self {
        let payment = booking.payment();
        let (cancelled_at, cancellation_reason, refunded, expired_at) = match &booking.state {
            State::Pending | State::Confirmed(_) => (None, None, false, None),
            State::Cancelled { at, reason, refunded, .. } => {
                (Some(at.micros()), reason.as_ref().map(domain::Note::as_str), *refunded, None)
            }
            State::Expired { at } => (None, None, false, Some(at.micros())),
        };
        Self {
            transaction_id: payment.map(|payment| payment.transaction.as_str()),
            confirmed_at: payment.map(|payment| payment.at.micros()),
            cancelled_at,
            cancellation_reason,
            refunded,
            expired_at,
        }
    }
}

/// Decodes an instant from microseconds since 1970.
pub(crate) fn time(micros: i64) -> Result<Timestamp, Cause> {
    Timestamp::from_micros(micros).map_err(Cause::new)
}

/// Encodes the items of a booking as JSON.
pub(crate) fn items_to(items: &Items) -> String {
    let item = |item: &Item| {
        json!([hex(item.ticket_type), item.quantity, item.unit_price.amount(), item.name.as_str()])
    };
    items.iter().map(item).collect::<Value>().to_string()
}

fn items_from(text: &str, currency: Currency) -> Result<Items, Cause> {
    let rows: Vec<(String, u32, i64, String)> = serde_json::from_str(text).map_err(Cause::new)?;
    let item = |(id, quantity, price, name): (String, u32, i64, String)| {
        let name: Name = name.parse().map_err(Cause::new)?;
        let unit_price = Money::new(price, currency).map_err(Cause::new)?;
        Ok(Item { ticket_type: unhex(&id)?, name, quantity, unit_price })
    };
    let items = rows.into_iter().map(item).collect::<Result<Vec<_>, Cause>>()?;
    Items::new(items).ok_or_else(|| Cause::new("its items are empty, repeated or zero"))
}

/// Encodes the lines of a ledger entry as JSON.
pub(crate) fn lines_to(lines: &[EntryLine]) -> String {
    let line = |line: &EntryLine| json!([hex(line.ticket_type), line.quantity]);
    lines.iter().map(line).collect::<Value>().to_string()
}

/// Decodes the lines of a ledger entry.
pub(crate) fn lines_from(text: &str) -> Result<Vec<EntryLine>, Cause> {
    let rows: Vec<(String, u32)> = serde_json::from_str(text).map_err(Cause::new)?;
    rows.into_iter().map(|(id, quantity)| Ok(EntryLine { ticket_type: unhex(&id)?, quantity })).collect()
}

/// Encodes a ticket type's id for stored JSON: 32 hexadecimal digits.
pub(crate) fn hex(id: TicketTypeId) -> String {
    format!("{:032x}", u128::from_be_bytes(*id.bytes()))
}

fn unhex(text: &str) -> Result<TicketTypeId, Cause> {
    let value = u128::from_str_radix(text, 16).map_err(Cause::new)?;
    Ok(TicketTypeId::from_bytes(value.to_be_bytes()))
}
