//! Bookings on the wire.

use domain::{
    Booking, BookingId, BookingStatus, CAPACITY_MAX, EventId, Invalid, Note, PaymentStatus, State,
    TicketSelection, TicketTypeId, Timestamp, TransactionId, UserId,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::{As, without_null};
use super::{MoneyField, MoneyView, Object, ParsedText};

/// The body of `POST /v1/bookings`: exactly one of `ticketQuantity` and `items`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = without_null)]
pub(crate) struct CreateBooking {
    /// Which event.
    #[schemars(with = "As<EventId>")]
    pub(crate) event_id: EventId,
    /// How many tickets of the only ticket type. Either this or `items`.
    #[serde(default)]
    #[schemars(range(min = 1, max = CAPACITY_MAX))]
    ticket_quantity: Option<u32>,
    /// How many tickets of which types. Either this or `ticketQuantity`.
    #[serde(default)]
    #[schemars(length(min = 1))]
    items: Option<Vec<Object<ItemRequest>>>,
    /// What the buyer was shown; refused where it is not the server's total.
    #[serde(default)]
    pub(crate) expected_total: Option<MoneyField>,
    /// How the buyer means to pay; a remark.
    #[serde(default)]
    pub(crate) payment_method: Option<ParsedText<Note>>,
    /// Whom the booking is for: needed from a service or an admin, oneself for a user.
    #[serde(default)]
    pub(crate) user_id: Option<ParsedText<UserId>>,
}

/// How many tickets of one type are wanted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "NewItem")]
struct ItemRequest {
    /// Which ticket type.
    #[schemars(with = "As<TicketTypeId>")]
    ticket_type_id: TicketTypeId,
    /// How many tickets.
    #[schemars(range(min = 1, max = CAPACITY_MAX))]
    quantity: u32,
}

impl CreateBooking {
    /// Which tickets are wanted.
    pub(crate) fn ticket_selection(&self) -> Result<TicketSelection, Invalid> {
        let at_least_one = "must be at least 1";
        match (self.ticket_quantity, &self.items) {
            (Some(_), Some(_)) => Err(Invalid::new("", "must have either ticketQuantity or items, not both")),
            (None, None) => Err(Invalid::new("", "must have ticketQuantity or items")),
            (Some(0), None) => Err(Invalid::new("/ticketQuantity", at_least_one)),
            (Some(quantity), None) => Ok(TicketSelection::Quantity(quantity)),
            (None, Some(items)) if items.is_empty() => Err(Invalid::new("/items", "must not be empty")),
            (None, Some(items)) => {
                if let Some(place) = items.iter().position(|Object(item)| item.quantity == 0) {
                    return Err(Invalid::new(format!("/items/{place}/quantity"), at_least_one));
                }
                Ok(TicketSelection::Items(
                    items.iter().map(|Object(item)| (item.ticket_type_id, item.quantity)).collect(),
                ))
            }
        }
    }
}

/// The body of `POST /v1/bookings/{id}/confirm`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "ConfirmBooking", transform = without_null)]
pub(crate) struct ConfirmRequest {
    /// The payment provider's name for the captured payment, compared exactly.
    pub(crate) payment_transaction_id: ParsedText<TransactionId>,
    /// What was captured; refused where it is not the booking's total.
    #[serde(default)]
    pub(crate) amount: Option<MoneyField>,
}

/// The body of `POST /v1/bookings/{id}/cancel`; may be absent.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "CancelBooking", transform = without_null)]
pub(crate) struct CancelRequest {
    /// Why; a remark.
    #[serde(default)]
    pub(crate) reason: Option<ParsedText<Note>>,
}

/// The body of `GET /v1/bookings/{id}/validate`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Validation")]
pub(crate) struct ValidationView<'a> {
    /// Whether the booking is confirmed, and for that event.
    pub(crate) valid: bool,
    /// The booking, where it is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BookingView<'a>")]
    pub(crate) booking: Option<BookingView<'a>>,
}

/// A booking as it is shown.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Booking")]
pub(crate) struct BookingView<'a> {
    /// Names the booking for its whole life.
    #[schemars(with = "As<BookingId>")]
    id: BookingId,
    /// Which event.
    #[schemars(with = "As<EventId>")]
    event_id: EventId,
    /// Whom it is for.
    #[schemars(with = "As<UserId>")]
    user_id: &'a str,
    /// Where it stands.
    #[schemars(with = "As<BookingStatus>")]
    status: &'static str,
    /// Where its payment stands.
    #[schemars(with = "As<PaymentStatus>")]
    payment_status: &'static str,
    /// How many tickets, of all types.
    ticket_quantity: u32,
    /// Which tickets.
    items: Vec<ItemView<'a>>,
    /// What it costs, frozen when it was booked.
    total: MoneyView,
    /// Until when it holds its tickets unpaid.
    #[schemars(with = "As<Timestamp>")]
    hold_expires_at: Timestamp,
    /// Whole seconds until then; 0 unless pending.
    expires_in: u64,
    /// The buyer's remark on the payment.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    payment_method: Option<&'a str>,
    /// The captured payment.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    payment_transaction_id: Option<&'a str>,
    /// Why it was cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    cancellation_reason: Option<&'a str>,
    /// Counts changes of the booking, from 1.
    version: u32,
    /// When it was made.
    #[schemars(with = "As<Timestamp>")]
    created_at: Timestamp,
    /// When it last changed.
    #[schemars(with = "As<Timestamp>")]
    updated_at: Timestamp,
    /// When it was paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "As<Timestamp>")]
    confirmed_at: Option<Timestamp>,
    /// When it was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "As<Timestamp>")]
    cancelled_at: Option<Timestamp>,
    /// When it was freed unpaid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "As<Timestamp>")]
    expired_at: Option<Timestamp>,
}

/// The tickets of one type in a booking.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Item")]
struct ItemView<'a> {
    /// Which ticket type.
    #[schemars(with = "As<TicketTypeId>")]
    ticket_type_id: TicketTypeId,
    /// What it was called when booked.
    name: &'a str,
    /// How many tickets.
    quantity: u32,
    /// What one cost when booked.
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
