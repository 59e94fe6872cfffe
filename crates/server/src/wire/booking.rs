//! Bookings on the wire.

use domain::{
    Ask, Booking, BookingId, EventId, Invalid, Note, State, TicketTypeId, Timestamp, TransactionId, UserId,
};
use serde::{Deserialize, Serialize};

use super::{MoneyField, MoneyView, Object, Parsed};

/// The body of `POST /v1/bookings`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CreateBooking {
    pub(crate) event_id: EventId,
    #[serde(default)]
    ticket_quantity: Option<u32>,
    #[serde(default)]
    items: Option<Vec<Object<ItemRequest>>>,
    #[serde(default)]
    pub(crate) expected_total: Option<MoneyField>,
    #[serde(default)]
    pub(crate) payment_method: Option<Parsed<Note>>,
    #[serde(default)]
    pub(crate) user_id: Option<Parsed<UserId>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ItemRequest {
    ticket_type_id: TicketTypeId,
    quantity: u32,
}

impl CreateBooking {
    /// Which tickets are wanted.
    pub(crate) fn ask(&self) -> Result<Ask, Invalid> {
        let at_least_one = "must be at least 1";
        match (self.ticket_quantity, &self.items) {
            (Some(_), Some(_)) => Err(Invalid::new("", "must have either ticketQuantity or items, not both")),
            (None, None) => Err(Invalid::new("", "must have ticketQuantity or items")),
            (Some(0), None) => Err(Invalid::new("/ticketQuantity", at_least_one)),
            (Some(quantity), None) => Ok(Ask::Quantity(quantity)),
            (None, Some(items)) if items.is_empty() => Err(Invalid::new("/items", "must not be empty")),
            (None, Some(items)) => {
                if let Some(place) = items.iter().position(|Object(item)| item.quantity == 0) {
                    return Err(Invalid::new(format!("/items/{place}/quantity"), at_least_one));
                }
                Ok(Ask::Items(
                    items.iter().map(|Object(item)| (item.ticket_type_id, item.quantity)).collect(),
                ))
            }
        }
    }
}

/// The body of `POST /v1/bookings/{id}/confirm`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ConfirmRequest {
    pub(crate) payment_transaction_id: Parsed<TransactionId>,
    #[serde(default)]
    pub(crate) amount: Option<MoneyField>,
}

/// The body of `POST /v1/bookings/{id}/cancel`; may be absent.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CancelRequest {
    #[serde(default)]
    pub(crate) reason: Option<Parsed<Note>>,
}

/// The body of `GET /v1/bookings/{id}/validate`.
#[derive(Serialize)]
pub(crate) struct ValidationView<'a> {
    pub(crate) valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) booking: Option<BookingView<'a>>,
}

/// A booking as it is shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BookingView<'a> {
    id: BookingId,
    event_id: EventId,
    user_id: &'a str,
    status: &'static str,
    payment_status: &'static str,
    ticket_quantity: u32,
    items: Vec<ItemView<'a>>,
    total: MoneyView,
    hold_expires_at: Timestamp,
    expires_in: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_transaction_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancellation_reason: Option<&'a str>,
    version: u32,
    created_at: Timestamp,
    updated_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmed_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expired_at: Option<Timestamp>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ItemView<'a> {
    ticket_type_id: TicketTypeId,
    name: &'a str,
    quantity: u32,
    unit_price: MoneyView,
}

impl<'a> BookingView<'a> {
    /// The booking as seen at `now`.
    pub(crate) fn new(booking: &'a Booking, now: Timestamp) -> Self {
        let payment = booking.payment();
        let (cancelled_at, reason, expired_at) = match &booking.state {
            State::Pending | State::Confirmed(_) => (None, None, None),
            State::Cancelled { at, reason, .. } => (Some(*at), reason.as_ref(), None),
            State::Expired { at } => (None, None, Some(*at)),
        };
        let expires_in = match booking.state {
            State::Pending => now.seconds_until(booking.hold_expires_at),
            State::Confirmed(_) | State::Cancelled { .. } | State::Expired { .. } => 0,
        };
        let item = |item: &'a domain::Item| ItemView {
            ticket_type_id: item.ticket_type,
            name: item.name.as_str(),
            quantity: item.quantity,
            unit_price: item.unit_price.into(),
        };
        Self {
            id: booking.id,
            event_id: booking.event_id,
            user_id: booking.user.as_str(),
            status: booking.status().as_str(),
            payment_status: booking.payment_status().as_str(),
            ticket_quantity: booking.items.quantity(),
            items: booking.items.iter().map(item).collect(),
            total: booking.total.into(),
            hold_expires_at: booking.hold_expires_at,
            expires_in,
            payment_method: booking.payment_method.as_ref().map(domain::Text::as_str),
            payment_transaction_id: payment.map(|payment| payment.transaction.as_str()),
            cancellation_reason: reason.map(domain::Text::as_str),
            version: booking.version,
            created_at: booking.created_at,
            updated_at: booking.updated_at,
            confirmed_at: payment.map(|payment| payment.at),
            cancelled_at,
            expired_at,
        }
    }
}
