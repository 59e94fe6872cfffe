//! What people attend, and how many tickets of it are left.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::booking::{BookingStatus, Item};
use crate::decide::Inconsistent;
use crate::sabotage::{Guard, removed};
use crate::{Currency, EventId, Money, Name, TicketTypeId, TimeZone, Timestamp};

/// An event: what it is (rarely edited, shared) and what is left of it (changed by every booking).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Names the event for its whole life.
    pub id: EventId,
    /// The description.
    pub details: Arc<EventDetails>,
    /// The counters.
    pub inventory: Inventory,
}

/// The description of an event, as its organiser edits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventDetails {
    /// What it is called.
    pub name: Name,
    /// Where it takes place.
    pub venue: Name,
    /// When it begins; nothing is booked from then on.
    pub starts_at: Timestamp,
    /// The zone in which people read the start.
    pub time_zone: Option<TimeZone>,
    /// The one currency of all its prices.
    pub currency: Currency,
    /// Bookings begin here; at once where unset.
    pub sales_start_at: Option<Timestamp>,
    /// Bookings end here; at the start of the event where unset.
    pub sales_end_at: Option<Timestamp>,
    /// How long a new booking may stay unpaid, in seconds.
    pub hold_seconds: u32,
    /// How long before the start a user may last give back a paid booking, in seconds.
    pub cancel_cutoff_seconds: u32,
    /// Most tickets of one booking.
    pub max_tickets_per_booking: u32,
    /// Most tickets one user may hold, pending and confirmed; unlimited where unset.
    pub max_tickets_per_user: Option<u32>,
    /// On sale, paused or cancelled.
    pub status: EventStatus,
    /// What can be bought, in the organiser's order. Never empty; ids are unique.
    pub ticket_types: Vec<TicketType>,
    /// Counts edits of this description, from 1; sales do not count.
    pub version: u32,
    /// When the event was created.
    pub created_at: Timestamp,
    /// When this description was last edited.
    pub updated_at: Timestamp,
}

/// A priced part of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketType {
    /// Names the ticket type for its whole life.
    pub id: TicketTypeId,
    /// What it is called.
    pub name: Name,
    /// What one ticket costs a new booking.
    pub price: Money,
}

/// Whether tickets may be booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventStatus {
    /// Yes, within the sales window.
    OnSale,
    /// Not now; holds may still be paid.
    Paused,
    /// Never again; every live booking is cancelled.
    Cancelled,
}

impl EventStatus {
    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnSale => "onSale",
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for EventStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventStatus {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        [Self::OnSale, Self::Paused, Self::Cancelled]
            .into_iter()
            .find(|status| status.as_str() == word)
            .ok_or("must be onSale, paused or cancelled")
    }
}

/// The counters of an event: the narrow row that every booking changes.
///
/// Invariants: `held + sold ≤ capacity`, for the event and for each ticket type with a capacity of its
/// own; `held` is the sum over pending bookings and `sold` over confirmed ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// Tickets in all, 1 … [`crate::CAPACITY_MAX`].
    pub capacity: u32,
    /// Tickets of pending bookings.
    pub held: u32,
    /// Tickets of confirmed bookings.
    pub sold: u32,
    /// The counters of each ticket type, in the order of [`About::ticket_types`].
    pub types: Vec<TypeInventory>,
    /// The number of the event's last ledger entry.
    pub seq: u64,
    /// The time of the event's last ledger entry; no later entry is dated before it.
    pub last_at: Timestamp,
    /// How many bookings stand where, for statistics.
    pub tallies: Tallies,
}

/// The counters of one ticket type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeInventory {
    /// Its own bound beside the event's; none where unset.
    pub capacity: Option<u32>,
    /// Tickets of pending bookings.
    pub held: u32,
    /// Tickets of confirmed bookings.
    pub sold: u32,
}

/// How many bookings of an event stand in each status, and what the confirmed ones cost.
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
    /// The sum of the totals of the confirmed bookings, in minor units. Wide enough for any event within
    /// its bounds, so that no payment is ever turned away because of a statistic.
    pub revenue: i128,
}

/// Where a ticket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TicketState {
    /// On offer.
    Free,
    /// Held by a pending booking.
    Held,
    /// Sold to a confirmed booking.
    Sold,
}

impl Event {
    /// Tickets that could be booked now.
    pub fn available(&self) -> u32 {
        self.inventory.available()
    }

    /// Tickets of the ticket type at `index` that could be booked now: what its own capacity and the
    /// event's both leave. 0 for an index that does not exist.
    pub fn available_of(&self, index: usize) -> u32 {
        self.inventory
            .types
            .get(index)
            .map_or(0, |kind| kind.available(self.inventory.capacity).min(self.available()))
    }

    /// The place of a ticket type in [`About::ticket_types`] and [`Stock::types`].
    pub fn index_of(&self, id: TicketTypeId) -> Option<usize> {
        self.details.ticket_types.iter().position(|kind| kind.id == id)
    }

    /// The earliest instant at which a booking made at `now` may be freed unpaid.
    pub fn hold_until(&self, now: Timestamp) -> Timestamp {
        now.plus_seconds(self.details.hold_seconds)
    }

    /// Moves the tickets of `items` between two places.
    ///
    /// Refused as a whole, and nothing moved that a caller keeps, when a count would fall below 0 or
    /// above a capacity: the rules look first, so that this is never the answer to a buyer.
    pub(crate) fn move_tickets(
        &mut self,
        items: &[Item],
        from: TicketState,
        to: TicketState,
    ) -> Result<(), Inconsistent> {
        for item in items {
            let index =
                self.index_of(item.ticket_type).ok_or(Inconsistent("a booked ticket type is gone"))?;
            let kind =
                self.inventory.types.get_mut(index).ok_or(Inconsistent("a ticket type has no counters"))?;
            move_count(&mut kind.held, &mut kind.sold, item.quantity, (from, to))?;
            move_count(&mut self.inventory.held, &mut self.inventory.sold, item.quantity, (from, to))?;
            within_capacity(kind.held, kind.sold, kind.capacity.unwrap_or(self.inventory.capacity))?;
        }
        within_capacity(self.inventory.held, self.inventory.sold, self.inventory.capacity)
    }
}

impl Inventory {
    /// Tickets neither held nor sold.
    pub fn available(&self) -> u32 {
        self.capacity.saturating_sub(self.held).saturating_sub(self.sold)
    }
}

impl TypeInventory {
    /// Tickets that this type's own capacity leaves; the event's where it has none.
    pub fn available(&self, event_capacity: u32) -> u32 {
        self.capacity.unwrap_or(event_capacity).saturating_sub(self.held).saturating_sub(self.sold)
    }
}

impl Tallies {
    /// The tallies of two events together.
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

    /// Counts a booking that is new (`from` unset) or has changed its status; `total` is its price in
    /// minor units, which is revenue exactly while it is confirmed.
    pub(crate) fn count(
        &mut self,
        from: Option<BookingStatus>,
        to: BookingStatus,
        total: i64,
    ) -> Result<(), Inconsistent> {
        let total = i128::from(total);
        if let Some(from) = from {
            let before = self.of(from);
            *before = before.checked_sub(1).ok_or(Inconsistent("a tally would fall below 0"))?;
        }
        let after = self.of(to);
        *after = after.checked_add(1).ok_or(Inconsistent("a tally would overflow"))?;
        let signed = match (from, to) {
            (Some(BookingStatus::Confirmed), BookingStatus::Confirmed) => 0,
            (Some(BookingStatus::Confirmed), _) => -total,
            (_, BookingStatus::Confirmed) => total,
            (_, BookingStatus::Pending | BookingStatus::Cancelled | BookingStatus::Expired) => 0,
        };
        self.revenue = self.revenue.checked_add(signed).ok_or(Inconsistent("the revenue would overflow"))?;
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
) -> Result<(), Inconsistent> {
    let below = Inconsistent("a count would fall below 0");
    let above = Inconsistent("a count would overflow");
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

fn within_capacity(held: u32, sold: u32, capacity: u32) -> Result<(), Inconsistent> {
    if removed(Guard::Capacity) {
        return Ok(());
    }
    match held.checked_add(sold) {
        Some(taken) if taken <= capacity => Ok(()),
        Some(_) | None => Err(Inconsistent("more tickets would be taken than there are")),
    }
}
