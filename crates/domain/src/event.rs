//! Events: their description and their inventory of tickets.

use std::sync::Arc;

use crate::booking::{BookingStatus, Item};
use crate::string_enum::string_enum;
use crate::{Currency, EventId, InconsistencyError, Money, Name, TicketTypeId, TimeZone, Timestamp, guard};

/// An event: its description (rarely edited, shared) and its inventory (changed by every booking).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The id; it never changes.
    pub id: EventId,
    /// The description.
    pub details: Arc<EventDetails>,
    /// The counters.
    pub inventory: Inventory,
}

/// The description of an event, as its organiser edits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventDetails {
    /// The name of the event.
    pub name: Name,
    /// The place of the event.
    pub venue: Name,
    /// The start of the event; no bookings are made from then on.
    pub starts_at: Timestamp,
    /// The time zone in which the start is displayed.
    pub time_zone: Option<TimeZone>,
    /// The currency of all prices.
    pub currency: Currency,
    /// The start of sales; immediately if `None`.
    pub sales_start_at: Option<Timestamp>,
    /// The end of sales; the start of the event if `None`.
    pub sales_end_at: Option<Timestamp>,
    /// The time that a new booking may stay unpaid, in seconds.
    pub hold_seconds: u32,
    /// The time before the start until which users may cancel paid bookings, in seconds.
    pub cancel_cutoff_seconds: u32,
    /// The maximum number of tickets of one booking.
    pub max_tickets_per_booking: u32,
    /// The maximum number of tickets that one user may hold, pending and confirmed; unlimited if `None`.
    pub max_tickets_per_user: Option<u32>,
    /// On sale, paused or cancelled.
    pub status: EventStatus,
    /// The ticket types, in the organiser's order. Never empty; the ids are unique.
    pub ticket_types: Vec<TicketType>,
    /// The number of edits of this description, from 1; sales do not count.
    pub version: u32,
    /// The time of the event's creation.
    pub created_at: Timestamp,
    /// The time of the last edit of this description.
    pub updated_at: Timestamp,
}

/// A category of an event's tickets, with a price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketType {
    /// The id; it never changes.
    pub id: TicketTypeId,
    /// The name of the ticket type.
    pub name: Name,
    /// The price of one ticket for new bookings.
    pub price: Money,
}

string_enum! {
    /// The sales status of an event.
    EventStatus("must be onSale, paused or cancelled") {
        /// Tickets may be booked, within the sales window.
        OnSale = "onSale",
        /// No bookings now; holds may still be paid.
        Paused = "paused",
        /// No bookings any more; every live booking is cancelled.
        Cancelled = "cancelled",
    }
}

/// The counters of an event: the narrow row that every booking changes.
///
/// Invariants: `held + sold ≤ capacity`, for the event and for each ticket type with a capacity of its own;
/// `held` is the sum over pending bookings and `sold` over confirmed ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// The total number of tickets, 1 … [`crate::CAPACITY_MAX`].
    pub capacity: u32,
    /// Tickets of pending bookings.
    pub held: u32,
    /// Tickets of confirmed bookings.
    pub sold: u32,
    /// The counters of each ticket type, in the order of [`EventDetails::ticket_types`].
    pub types: Vec<TypeInventory>,
    /// The number of the event's last ledger entry.
    pub seq: u64,
    /// The time of the event's last ledger entry; no later entry is dated before it.
    pub last_at: Timestamp,
    /// The number of bookings in each status, for statistics.
    pub tallies: Tallies,
}

/// The counters of one ticket type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeInventory {
    /// The capacity of this ticket type, in addition to that of the event; none if `None`.
    pub capacity: Option<u32>,
    /// Tickets of pending bookings.
    pub held: u32,
    /// Tickets of confirmed bookings.
    pub sold: u32,
}

/// The number of an event's bookings in each status, and the revenue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallies {
    /// Pending bookings.
    pub pending: u64,
    /// Confirmed bookings.
    pub confirmed: u64,
    /// Cancelled bookings.
    pub cancelled: u64,
    /// Expired bookings.
    pub expired: u64,
    /// The sum of the totals of the confirmed bookings, in minor units. It cannot overflow for any event
    /// within its bounds, so no payment is ever refused because of a statistic.
    pub revenue: i128,
}

/// The state of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TicketState {
    /// Available for booking.
    Free,
    /// Held by a pending booking.
    Held,
    /// Sold to a confirmed booking.
    Sold,
}

impl Event {
    /// The number of tickets that can be booked now.
    pub fn available(&self) -> u32 {
        self.inventory.available()
    }

    /// The number of tickets of the ticket type at `index` that can be booked now: limited by its own
    /// capacity and by the event's. 0 if the index does not exist.
    pub fn available_of(&self, index: usize) -> u32 {
        self.inventory
            .types
            .get(index)
            .map_or(0, |kind| kind.available(self.inventory.capacity).min(self.available()))
    }

    /// The index of a ticket type in [`EventDetails::ticket_types`] and [`Inventory::types`].
    pub fn index_of(&self, id: TicketTypeId) -> Option<usize> {
        self.details.ticket_types.iter().position(|kind| kind.id == id)
    }

    /// The earliest instant at which a booking made at `now` may expire unpaid.
    pub(crate) fn hold_until(&self, now: Timestamp) -> Timestamp {
        now.plus_seconds(self.details.hold_seconds)
    }

    /// Moves the tickets of `items` from one state to another.
    ///
    /// Fails as a whole, in which case the caller discards the event, if a count would fall below 0 or exceed
    /// a capacity. The rules check this before, so a buyer never gets this error.
    pub(crate) fn move_tickets(
        &mut self,
        items: &[Item],
        from: TicketState,
        to: TicketState,
    ) -> Result<(), InconsistencyError> {
        for item in items {
            let index = self
                .index_of(item.ticket_type)
                .ok_or(InconsistencyError("a booked ticket type does not exist"))?;
            let kind = self
                .inventory
                .types
                .get_mut(index)
                .ok_or(InconsistencyError("a ticket type has no counters"))?;
            move_count(&mut kind.held, &mut kind.sold, item.quantity, (from, to))?;
            move_count(&mut self.inventory.held, &mut self.inventory.sold, item.quantity, (from, to))?;
            within_capacity(kind.held, kind.sold, kind.capacity.unwrap_or(self.inventory.capacity))?;
        }
        within_capacity(self.inventory.held, self.inventory.sold, self.inventory.capacity)
    }
}

impl Inventory {
    /// The number of tickets that are neither held nor sold.
    pub fn available(&self) -> u32 {
        self.capacity.saturating_sub(self.held).saturating_sub(self.sold)
    }
}

impl TypeInventory {
    /// The number of tickets that this type's own capacity leaves, or the event's capacity if it has none.
    pub fn available(&self, event_capacity: u32) -> u32 {
        self.capacity.unwrap_or(event_capacity).saturating_sub(self.held).saturating_sub(self.sold)
    }
}

impl Tallies {
    /// The sum of two tallies.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            pending: self.pending.saturating_add(other.pending),
            confirmed: self.confirmed.saturating_add(other.confirmed),
            cancelled: self.cancelled.saturating_add(other.cancelled),
            expired: self.expired.saturating_add(other.expired),
            revenue: self.revenue.saturating_add(other.revenue),
        }
    }

    /// Counts a booking that is new (`from` is `None`) or has changed its status; `total` is its price in
    /// minor units, which is revenue while the booking is confirmed.
    pub(crate) fn count(
        &mut self,
        from: Option<BookingStatus>,
        to: BookingStatus,
        total: i64,
    ) -> Result<(), InconsistencyError> {
        let total = i128::from(total);
        if let Some(from) = from {
            let before = self.of(from);
            *before = before.checked_sub(1).ok_or(InconsistencyError("a tally would fall below 0"))?;
        }
        let after = self.of(to);
        *after = after.checked_add(1).ok_or(InconsistencyError("a tally would overflow"))?;
        let signed = match (from, to) {
            (Some(BookingStatus::Confirmed), BookingStatus::Confirmed) => 0,
            (Some(BookingStatus::Confirmed), _) => -total,
            (_, BookingStatus::Confirmed) => total,
            (_, BookingStatus::Pending | BookingStatus::Cancelled | BookingStatus::Expired) => 0,
        };
        self.revenue =
            self.revenue.checked_add(signed).ok_or(InconsistencyError("the revenue would overflow"))?;
        Ok(())
    }

    fn of(&mut self, status: BookingStatus) -> &mut u64 {
        match status {
            BookingStatus::Pending => &mut self.pending,
            BookingStatus::Confirmed => &mut self.confirmed,
            BookingStatus::Cancelled => &mut self.cancelled,
            BookingStatus::Expired => &mut self.expired,
        }
    }
}

fn move_count(
    held: &mut u32,
    sold: &mut u32,
    quantity: u32,
    ticket_move: (TicketState, TicketState),
) -> Result<(), InconsistencyError> {
    let below = InconsistencyError("a count would fall below 0");
    let above = InconsistencyError("a count would overflow");
    match ticket_move.0 {
        TicketState::Free => {}
        TicketState::Held => *held = held.checked_sub(quantity).ok_or(below)?,
        TicketState::Sold => *sold = sold.checked_sub(quantity).ok_or(below)?,
    }
    match ticket_move.1 {
        TicketState::Free => {}
        TicketState::Held => *held = held.checked_add(quantity).ok_or(above)?,
        TicketState::Sold => *sold = sold.checked_add(quantity).ok_or(above)?,
    }
    Ok(())
}

fn within_capacity(held: u32, sold: u32, capacity: u32) -> Result<(), InconsistencyError> {
    if guard!(Capacity: held.checked_add(sold).is_none_or(|taken| taken > capacity)) {
        return Err(InconsistencyError("more tickets would be held and sold than exist"));
    }
    Ok(())
}
