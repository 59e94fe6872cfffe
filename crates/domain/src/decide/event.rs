//! The rules of creating and editing events.

use std::sync::Arc;

use super::{Answer, Change, Draft, Inconsistent, Note, Verdict, no_such, refuse};
use crate::limit::{
    CANCEL_CUTOFF_SECONDS_MAX, CAPACITY_MAX, HOLD_SECONDS_MAX, HOLD_SECONDS_MIN, PRICE_MAX, TICKET_TYPES_MAX,
};
use crate::{
    About, Command, EntryKind, Event, EventPatch, EventStatus, Invalid, Label, Money, NewEvent, Refusal,
    Stock, Tallies, TicketType, TicketTypePatch, Timestamp, TypeStock,
};

/// Puts an event on sale.
pub(super) fn create(new: &NewEvent, command: &Command, now: Timestamp) -> Result<Verdict, Inconsistent> {
    let kind =
        |kind: &crate::NewTicketType| TicketType { id: kind.id, name: kind.name.clone(), price: kind.price };
    let Some(first) = new.ticket_types.first() else {
        return refuse(Refusal::Invalid(vec![Invalid::new("/ticketTypes", "must name at least one")]));
    };
    let about = About {
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
    let types = new.ticket_types.iter().map(|kind| TypeStock { capacity: kind.capacity, held: 0, sold: 0 });
    let stock = Stock {
        capacity: new.capacity,
        held: 0,
        sold: 0,
        types: types.collect(),
        seq: 0,
        last_at: now,
        tallies: Tallies::default(),
    };
    let event = Event { id: new.id, about: Arc::new(about), stock };
    let mut complaints = check(&event);
    complaints.extend(check_start(new.starts_at, now));
    if !complaints.is_empty() {
        return refuse(Refusal::Invalid(complaints));
    }
    let mut draft = Draft::new(&event, None, command, now);
    let note = Note {
        kind: EntryKind::EventCreated,
        booking: None,
        refund: None,
        quantity: new.capacity,
        from: None,
        to: Some(Label::OnSale),
    };
    draft.note(&note)?;
    Ok(edited(draft))
}

/// Edits an event. An edit that changes nothing is answered and not recorded.
pub(super) fn update(
    event: Option<&Event>,
    patch: &EventPatch,
    command: &Command,
    now: Timestamp,
) -> Result<Verdict, Inconsistent> {
    let Some(event) = event else { return no_such("event") };
    if patch.if_match.is_some_and(|seen| seen != event.about.version) {
        return refuse(Refusal::VersionMismatch { current: event.about.version });
    }
    if event.about.status == EventStatus::Cancelled {
        return refuse(Refusal::EventCancelled { booking: None, refund: None });
    }
    let mut after = event.clone();
    let mut complaints = apply(&mut after, patch);
    complaints.extend(check(&after));
    complaints.extend(patch.starts_at.and_then(|start| check_start(start, now)));
    complaints.extend(check_user_limit(event, patch));
    if !complaints.is_empty() {
        return refuse(Refusal::Invalid(complaints));
    }
    if let Some(in_use) = below_use(&after) {
        return refuse(Refusal::CapacityInUse { in_use });
    }
    if after == *event {
        return Ok(Verdict::Answer(Answer::Event(Box::new(after))));
    }
    let about = Arc::make_mut(&mut after.about);
    about.version = about.version.checked_add(1).ok_or(Inconsistent("an event was edited too often"))?;
    about.updated_at = now;
    let (from, to) = (event.about.status, about.status);
    let resized = event.stock.capacity.abs_diff(after.stock.capacity);
    let mut draft = Draft::new(&after, None, command, now);
    let kind = match to {
        EventStatus::Cancelled => EntryKind::EventCancelled,
        EventStatus::OnSale | EventStatus::Paused => EntryKind::EventUpdated,
    };
    let note = Note {
        kind,
        booking: None,
        refund: None,
        quantity: resized,
        from: (from != to).then_some(from.into()),
        to: (from != to).then_some(to.into()),
    };
    draft.note(&note)?;
    Ok(edited(draft))
}

fn edited(draft: Draft<'_>) -> Verdict {
    let event = draft.event;
    Verdict::Change(Box::new(Change {
        about: Some(event.about.clone()),
        stock: event.stock.clone(),
        booking: None,
        refund: None,
        user_tickets: None,
        entries: draft.entries,
        answer: Answer::Event(Box::new(event)),
    }))
}

/// Lays a patch over an event; says where the patch names what the event does not have.
fn apply(event: &mut Event, patch: &EventPatch) -> Vec<Invalid> {
    let mut complaints = Vec::new();
    let about = Arc::make_mut(&mut event.about);
    set(&mut about.name, patch.name.as_ref());
    set(&mut about.venue, patch.venue.as_ref());
    set(&mut about.starts_at, patch.starts_at.as_ref());
    set(&mut about.time_zone, patch.time_zone.as_ref());
    set(&mut event.stock.capacity, patch.capacity.as_ref());
    set(&mut about.sales_start_at, patch.sales_start_at.as_ref());
    set(&mut about.sales_end_at, patch.sales_end_at.as_ref());
    set(&mut about.hold_seconds, patch.hold_seconds.as_ref());
    set(&mut about.cancel_cutoff_seconds, patch.cancel_cutoff_seconds.as_ref());
    set(&mut about.max_tickets_per_booking, patch.max_tickets_per_booking.as_ref());
    set(&mut about.max_tickets_per_user, patch.max_tickets_per_user.as_ref());
    set(&mut about.status, patch.status.as_ref());
    if let Some(price) = patch.price {
        match about.ticket_types.as_mut_slice() {
            [only] => only.price = price,
            _ => complaints.push(Invalid::new("/price", "the event has several ticket types: say which")),
        }
    }
    for (place, edit) in patch.ticket_types.iter().enumerate() {
        let found =
            about.ticket_types.iter_mut().zip(&mut event.stock.types).find(|(kind, _)| kind.id == edit.id);
        match found {
            Some((kind, stock)) => apply_to_type(kind, stock, edit),
            None => complaints
                .push(Invalid::new(format!("/ticketTypes/{place}/id"), "the event has no such ticket type")),
        }
    }
    complaints
}

fn apply_to_type(kind: &mut TicketType, stock: &mut TypeStock, edit: &TicketTypePatch) {
    set(&mut kind.name, edit.name.as_ref());
    set(&mut kind.price, edit.price.as_ref());
    set(&mut stock.capacity, edit.capacity.as_ref());
}

fn set<T: Clone>(field: &mut T, value: Option<&T>) {
    if let Some(value) = value {
        *field = value.clone();
    }
}

/// Every bound of an event that can be seen without knowing the time or what it was before.
fn check(event: &Event) -> Vec<Invalid> {
    let about = &event.about;
    let mut complaints = Vec::new();
    let mut within = |pointer: &str, value: u32, min: u32, max: u32| {
        if !(min..=max).contains(&value) {
            complaints.push(Invalid::new(pointer, format!("must be between {min} and {max}")));
        }
    };
    within("/capacity", event.stock.capacity, 1, CAPACITY_MAX);
    within("/holdSeconds", about.hold_seconds, HOLD_SECONDS_MIN, HOLD_SECONDS_MAX);
    within("/cancelCutoffSeconds", about.cancel_cutoff_seconds, 0, CANCEL_CUTOFF_SECONDS_MAX);
    within("/maxTicketsPerBooking", about.max_tickets_per_booking, 1, CAPACITY_MAX);
    if let Some(limit) = about.max_tickets_per_user {
        within("/maxTicketsPerUser", limit, 1, CAPACITY_MAX);
    }
    for (place, kind) in event.stock.types.iter().enumerate() {
        if let Some(capacity) = kind.capacity {
            within(&format!("/ticketTypes/{place}/capacity"), capacity, 1, CAPACITY_MAX);
        }
    }
    if about.ticket_types.len() > TICKET_TYPES_MAX {
        complaints.push(Invalid::new("/ticketTypes", format!("at most {TICKET_TYPES_MAX} ticket types")));
    }
    for (place, kind) in about.ticket_types.iter().enumerate() {
        complaints.extend(check_price(place, kind.price, about));
    }
    if let (Some(start), Some(end)) = (about.sales_start_at, about.sales_end_at)
        && end <= start
    {
        complaints.push(Invalid::new("/salesEndAt", "must be later than salesStartAt"));
    }
    complaints
}

fn check_price(place: usize, price: Money, about: &About) -> Option<Invalid> {
    let pointer = |field: &str| format!("/ticketTypes/{place}/price/{field}");
    if price.amount() > PRICE_MAX {
        return Some(Invalid::new(
            pointer("amount"),
            format!("must be between 0 and {PRICE_MAX} minor units"),
        ));
    }
    let other = price.currency() != about.currency;
    other.then(|| Invalid::new(pointer("currency"), format!("the event sells in {}", about.currency.code())))
}

fn check_start(starts_at: Timestamp, now: Timestamp) -> Option<Invalid> {
    (starts_at <= now).then(|| Invalid::new("/startsAt", "must be in the future"))
}

/// A limit per user counts from the first booking on, so it can be raised or lifted, not brought in.
fn check_user_limit(event: &Event, patch: &EventPatch) -> Option<Invalid> {
    let wrong = match (event.about.max_tickets_per_user, patch.max_tickets_per_user?) {
        (None, Some(_)) => true,
        (Some(before), Some(after)) => after < before,
        (None | Some(_), None) => false,
    };
    wrong.then(|| Invalid::new("/maxTicketsPerUser", "may only be raised or lifted once the event exists"))
}

/// Tickets held and sold, where they no longer fit a capacity.
fn below_use(event: &Event) -> Option<u32> {
    let stock = &event.stock;
    let whole = std::iter::once((stock.held, stock.sold, stock.capacity));
    let parts =
        stock.types.iter().map(|kind| (kind.held, kind.sold, kind.capacity.unwrap_or(stock.capacity)));
    let in_use = |(held, sold, capacity): (u32, u32, u32)| (held.saturating_add(sold), capacity);
    whole.chain(parts).map(in_use).find(|(in_use, capacity)| in_use > capacity).map(|(in_use, _)| in_use)
}
