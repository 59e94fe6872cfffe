//! The rules of creating and editing events.

use std::sync::Arc;

use super::{Answer, Change, Decision, Draft, EntryFields, not_found, refuse};
use crate::limit::{
    CANCEL_CUTOFF_SECONDS_MAX, CAPACITY_MAX, HOLD_SECONDS_MAX, HOLD_SECONDS_MIN, PRICE_MAX, TICKET_TYPES_MAX,
};
use crate::{
    Command, EntryKind, Event, EventDetails, EventPatch, EventStatus, InconsistencyError, Invalid, Inventory,
    LedgerStatus, Money, NewEvent, Refusal, Tallies, TicketType, TicketTypePatch, Timestamp, TypeInventory,
};

/// Creates an event, on sale.
pub(super) fn create(
    new: &NewEvent,
    command: &Command,
    now: Timestamp,
) -> Result<Decision, InconsistencyError> {
    let errors = check_new(new, now);
    if !errors.is_empty() {
        return refuse(Refusal::Invalid(errors));
    }
    let first =
        new.ticket_types.first().ok_or(InconsistencyError("an event without ticket types was accepted"))?;
    let kind =
        |kind: &crate::NewTicketType| TicketType { id: kind.id, name: kind.name.clone(), price: kind.price };
    let details = EventDetails {
        name: new.name.clone(),
        venue: new.venue.clone(),
        starts_at: new.starts_at,
        time_zone: new.time_zone,
        currency: first.price.currency(),
        sales_start_at: new.sales_start_at,
        sales_end_at: new.sales_end_at,
        hold_seconds: new.hold_seconds,
        cancel_cutoff_seconds: new.cancel_cutoff_seconds,
        max_tickets_per_booking: new.max_tickets_per_booking,
        max_tickets_per_user: new.max_tickets_per_user,
        status: EventStatus::OnSale,
        ticket_types: new.ticket_types.iter().map(kind).collect(),
        version: 1,
        created_at: now,
        updated_at: now,
    };
    let types =
        new.ticket_types.iter().map(|kind| TypeInventory { capacity: kind.capacity, held: 0, sold: 0 });
    let inventory = Inventory {
        capacity: new.capacity,
        held: 0,
        sold: 0,
        types: types.collect(),
        seq: 0,
        last_at: now,
        tallies: Tallies::default(),
    };
    let event = Event { id: new.id, details: Arc::new(details), inventory };
    let mut draft = Draft::new(&event, None, command, now);
    let fields = EntryFields {
        kind: EntryKind::EventCreated,
        booking: None,
        refund: None,
        quantity: new.capacity,
        from: None,
        to: Some(LedgerStatus::OnSale),
    };
    draft.append_entry(&fields)?;
    Ok(edit_decision(draft))
}

/// Edits an event. An edit that changes nothing is answered, but not recorded.
pub(super) fn update(
    event: Option<&Event>,
    patch: &EventPatch,
    command: &Command,
    now: Timestamp,
) -> Result<Decision, InconsistencyError> {
    let errors = check_patch(patch, now);
    if !errors.is_empty() {
        return refuse(Refusal::Invalid(errors));
    }
    let Some(event) = event else { return not_found("event") };
    if patch.if_match.is_some_and(|seen| seen != event.details.version) {
        return refuse(Refusal::VersionMismatch { current: event.details.version });
    }
    if event.details.status == EventStatus::Cancelled {
        return refuse(Refusal::EventCancelled { booking: None, refund: None });
    }
    let mut after = event.clone();
    let mut errors = apply(&mut after, patch);
    errors.extend(check_user_limit(event, patch));
    if !errors.is_empty() {
        return refuse(Refusal::Invalid(errors));
    }
    if let Some(in_use) = below_use(&after) {
        return refuse(Refusal::CapacityInUse { in_use });
    }
    if after == *event {
        return Ok(Decision::Answer(Answer::Event(Box::new(after))));
    }
    let details = Arc::make_mut(&mut after.details);
    details.version =
        details.version.checked_add(1).ok_or(InconsistencyError("an event was edited too often"))?;
    details.updated_at = now;
    let (from, to) = (event.details.status, details.status);
    let resized = event.inventory.capacity.abs_diff(after.inventory.capacity);
    let mut draft = Draft::new(&after, None, command, now);
    let kind = match to {
        EventStatus::Cancelled => EntryKind::EventCancelled,
        EventStatus::OnSale | EventStatus::Paused => EntryKind::EventUpdated,
    };
    let fields = EntryFields {
        kind,
        booking: None,
        refund: None,
        quantity: resized,
        from: (from != to).then_some(from.into()),
        to: (from != to).then_some(to.into()),
    };
    draft.append_entry(&fields)?;
    Ok(edit_decision(draft))
}

fn edit_decision(draft: Draft<'_>) -> Decision {
    let event = draft.event;
    Decision::Change(Box::new(Change {
        details: Some(event.details.clone()),
        inventory: event.inventory.clone(),
        booking: None,
        refund: None,
        user_tickets: None,
        entries: draft.entries,
        answer: Answer::Event(Box::new(event)),
    }))
}

/// Applies a patch to an event; returns an error for each field that names something that the event lacks.
fn apply(event: &mut Event, patch: &EventPatch) -> Vec<Invalid> {
    let mut errors = Vec::new();
    let details = Arc::make_mut(&mut event.details);
    set(&mut details.name, patch.name.as_ref());
    set(&mut details.venue, patch.venue.as_ref());
    set(&mut details.starts_at, patch.starts_at.as_ref());
    set(&mut details.time_zone, patch.time_zone.as_ref());
    set(&mut event.inventory.capacity, patch.capacity.as_ref());
    set(&mut details.sales_start_at, patch.sales_start_at.as_ref());
    set(&mut details.sales_end_at, patch.sales_end_at.as_ref());
    set(&mut details.hold_seconds, patch.hold_seconds.as_ref());
    set(&mut details.cancel_cutoff_seconds, patch.cancel_cutoff_seconds.as_ref());
    set(&mut details.max_tickets_per_booking, patch.max_tickets_per_booking.as_ref());
    set(&mut details.max_tickets_per_user, patch.max_tickets_per_user.as_ref());
    set(&mut details.status, patch.status.as_ref());
    let other_currency = |price: &Money| price.currency() != details.currency;
    let wrong_currency = format!("the event sells in {}", details.currency.code());
    if patch.price.as_ref().is_some_and(other_currency) {
        errors.push(Invalid::new("/price/currency", wrong_currency.as_str()));
    }
    for (index, edit) in patch.ticket_types.iter().enumerate() {
        if edit.price.as_ref().is_some_and(other_currency) {
            errors
                .push(Invalid::new(format!("/ticketTypes/{index}/price/currency"), wrong_currency.as_str()));
        }
    }
    if let Some(price) = patch.price {
        match details.ticket_types.as_mut_slice() {
            [only] => only.price = price,
            _ => errors.push(Invalid::new("/price", "the event has several ticket types: use /ticketTypes")),
        }
    }
    for (index, edit) in patch.ticket_types.iter().enumerate() {
        let mut pairs = details.ticket_types.iter_mut().zip(&mut event.inventory.types);
        match pairs.find(|(kind, _)| kind.id == edit.id) {
            Some((kind, inventory)) => apply_to_type(kind, inventory, edit),
            None => errors
                .push(Invalid::new(format!("/ticketTypes/{index}/id"), "the event has no such ticket type")),
        }
    }
    let pointer = if patch.sales_end_at.is_some() { "/salesEndAt" } else { "/salesStartAt" };
    errors.extend(check_window(pointer, details.sales_start_at, details.sales_end_at));
    errors
}

fn apply_to_type(kind: &mut TicketType, inventory: &mut TypeInventory, edit: &TicketTypePatch) {
    set(&mut kind.name, edit.name.as_ref());
    set(&mut kind.price, edit.price.as_ref());
    set(&mut inventory.capacity, edit.capacity.as_ref());
}

fn set<T: Clone>(field: &mut T, value: Option<&T>) {
    if let Some(value) = value {
        *field = value.clone();
    }
}

/// The errors of a new event that do not depend on stored data.
fn check_new(new: &NewEvent, now: Timestamp) -> Vec<Invalid> {
    let mut errors = Vec::new();
    errors.extend(within("/capacity", new.capacity, 1, CAPACITY_MAX));
    errors.extend(check_numbers(&Numbers {
        hold_seconds: Some(new.hold_seconds),
        cancel_cutoff_seconds: Some(new.cancel_cutoff_seconds),
        max_tickets_per_booking: Some(new.max_tickets_per_booking),
        max_tickets_per_user: new.max_tickets_per_user,
    }));
    errors.extend(check_start(new.starts_at, now));
    errors.extend(check_window("/salesEndAt", new.sales_start_at, new.sales_end_at));
    if new.ticket_types.is_empty() || new.ticket_types.len() > TICKET_TYPES_MAX {
        errors.push(Invalid::new("/ticketTypes", format!("must name 1 to {TICKET_TYPES_MAX}")));
    }
    let currency = new.ticket_types.first().map(|kind| kind.price.currency());
    for (index, kind) in new.ticket_types.iter().enumerate() {
        let base = if new.single_price { String::new() } else { format!("/ticketTypes/{index}") };
        errors
            .extend(kind.capacity.and_then(|own| within(&format!("{base}/capacity"), own, 1, CAPACITY_MAX)));
        errors.extend(check_price(&base, kind.price));
        if Some(kind.price.currency()) != currency {
            let detail = "an event sells in one currency only";
            errors.push(Invalid::new(format!("{base}/price/currency"), detail));
        }
    }
    errors
}

/// The errors of an edit that do not depend on the event.
fn check_patch(patch: &EventPatch, now: Timestamp) -> Vec<Invalid> {
    let mut errors = Vec::new();
    errors.extend(patch.capacity.and_then(|capacity| within("/capacity", capacity, 1, CAPACITY_MAX)));
    errors.extend(check_numbers(&Numbers {
        hold_seconds: patch.hold_seconds,
        cancel_cutoff_seconds: patch.cancel_cutoff_seconds,
        max_tickets_per_booking: patch.max_tickets_per_booking,
        max_tickets_per_user: patch.max_tickets_per_user.flatten(),
    }));
    errors.extend(patch.starts_at.and_then(|start| check_start(start, now)));
    errors.extend(patch.price.and_then(|price| check_price("", price)));
    for (index, kind) in patch.ticket_types.iter().enumerate() {
        let base = format!("/ticketTypes/{index}");
        if patch.ticket_types.iter().take(index).any(|before| before.id == kind.id) {
            errors.push(Invalid::new(format!("{base}/id"), "is a duplicate"));
        }
        let own = kind.capacity.flatten();
        errors.extend(own.and_then(|own| within(&format!("{base}/capacity"), own, 1, CAPACITY_MAX)));
        errors.extend(kind.price.and_then(|price| check_price(&base, price)));
    }
    errors
}

/// The numbers of an event's description that a request contains.
struct Numbers {
    hold_seconds: Option<u32>,
    cancel_cutoff_seconds: Option<u32>,
    max_tickets_per_booking: Option<u32>,
    max_tickets_per_user: Option<u32>,
}

fn check_numbers(numbers: &Numbers) -> impl Iterator<Item = Invalid> {
    let bounds = [
        ("/holdSeconds", numbers.hold_seconds, HOLD_SECONDS_MIN, HOLD_SECONDS_MAX),
        ("/cancelCutoffSeconds", numbers.cancel_cutoff_seconds, 0, CANCEL_CUTOFF_SECONDS_MAX),
        ("/maxTicketsPerBooking", numbers.max_tickets_per_booking, 1, CAPACITY_MAX),
        ("/maxTicketsPerUser", numbers.max_tickets_per_user, 1, CAPACITY_MAX),
    ];
    bounds.into_iter().filter_map(|(pointer, value, min, max)| within(pointer, value?, min, max))
}

fn within(pointer: &str, value: u32, min: u32, max: u32) -> Option<Invalid> {
    let inside = (min..=max).contains(&value);
    (!inside).then(|| Invalid::new(pointer, format!("must be between {min} and {max}")))
}

fn check_price(base: &str, price: Money) -> Option<Invalid> {
    let detail = || format!("must be between 0 and {PRICE_MAX} minor units");
    (price.amount() > PRICE_MAX).then(|| Invalid::new(format!("{base}/price/amount"), detail()))
}

fn check_start(starts_at: Timestamp, now: Timestamp) -> Option<Invalid> {
    (starts_at <= now).then(|| Invalid::new("/startsAt", "must be in the future"))
}

fn check_window(pointer: &str, start: Option<Timestamp>, end: Option<Timestamp>) -> Option<Invalid> {
    let empty = start.zip(end).is_some_and(|(start, end)| end <= start);
    empty.then(|| Invalid::new(pointer, "must leave time between salesStartAt and salesEndAt"))
}

/// A limit per user must count from the first booking on, so it can be raised or removed, but not added.
fn check_user_limit(event: &Event, patch: &EventPatch) -> Option<Invalid> {
    let is_invalid = match (event.details.max_tickets_per_user, patch.max_tickets_per_user?) {
        (None, Some(_)) => true,
        (Some(before), Some(after)) => after < before,
        (None | Some(_), None) => false,
    };
    is_invalid
        .then(|| Invalid::new("/maxTicketsPerUser", "may only be raised or removed once the event exists"))
}

/// The tickets held and sold of the event, or of a ticket type, whose capacity is below that number.
fn below_use(event: &Event) -> Option<u32> {
    let inventory = &event.inventory;
    let whole = std::iter::once((inventory.held, inventory.sold, inventory.capacity));
    let parts = inventory
        .types
        .iter()
        .map(|kind| (kind.held, kind.sold, kind.capacity.unwrap_or(inventory.capacity)));
    let in_use = |(held, sold, capacity): (u32, u32, u32)| (held.saturating_add(sold), capacity);
    whole.chain(parts).map(in_use).find(|(in_use, capacity)| in_use > capacity).map(|(in_use, _)| in_use)
}
