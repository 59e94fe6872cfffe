//! The columns of all tables, each once.
//!
//! A group is a struct whose fields are columns of one table that are read and written together, in this
//! order. SQL texts contain the name of a group in braces instead of its columns (see [`crate::sql`]). To add
//! a column, add it to a group, and to the functions of [`crate::decode`] and [`crate::encode`] that the
//! compiler then points at.

use std::borrow::Cow;

use crate::Cause;
use crate::cell::{Cell, Cells, Column, ColumnName, Decimal, IntoCells, Read};
use crate::fault::RowResult;

/// The name of a column: that of the field, unless another one is given.
macro_rules! name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $name:literal) => {
        $name
    };
}

macro_rules! groups {
    ($($(#[$doc:meta])* $group:ident$(<$life:lifetime>)? {
        $($field:ident $(= $name:literal)?: $type:ty,)*
    })*) => {
        $($(#[$doc])*
        pub(crate) struct $group$(<$life>)? { $(pub(crate) $field: $type,)* }

        impl$(<$life>)? $group$(<$life>)? {
            /// The columns, in the order in which they are read and written.
            pub(crate) const COLUMNS: &'static [ColumnName] =
                &[$((name!($field $($name)?), <$type as Column<'_>>::KIND),)*];
        }

        impl<'r> IntoCells<'r> for $group$(<$life>)? {
            fn push_to(self, row: &mut Vec<Cell<'r>>) {
                row.extend([$(self.$field.into_cell(),)*]);
            }
        }

        impl<'r> Read<'r> for $group$(<$life>)? {
            fn read(cells: &mut Cells<'r>) -> RowResult<Self> {
                $(let $field: $type = in_column(name!($field $($name)?), cells.next())?;)*
                Ok(Self { $($field,)* })
            }
        })*
    };
}

fn in_column<T>(name: &str, value: RowResult<T>) -> RowResult<T> {
    value.map_err(|cause| Cause::new(format!("{name}: {cause}")))
}

groups! {
    /// The key of an event.
    EventKey {
        id: [u8; 16],
    }
    /// The key of an event, and the ledger number that was loaded: the guard of an update.
    EventGuard {
        id: [u8; 16],
        loaded_seq: u64,
    }
    /// The counters of an event (table `events`).
    EventCounters {
        capacity: u32,
        held: u32,
        sold: u32,
        seq: u64,
        last_at: i64,
    }
    /// The tallies of an event (table `events`).
    EventTallies<'r> {
        pending: u64,
        confirmed: u64,
        cancelled: u64,
        expired: u64,
        revenue: Decimal<'r>,
    }
    /// The columns of `event_details` that never change.
    EventOrigin<'r> {
        event_id: [u8; 16],
        currency: Cow<'r, str>,
        created_at: i64,
    }
    /// The columns of `event_details` that an organiser changes.
    EventDescription<'r> {
        name: Cow<'r, str>,
        venue: Cow<'r, str>,
        starts_at: i64,
        time_zone: Option<Cow<'r, str>>,
        sales_start_at: Option<i64>,
        sales_end_at: Option<i64>,
        hold_seconds: u32,
        cancel_cutoff_seconds: u32,
        max_tickets_per_booking: u32,
        max_tickets_per_user: Option<u32>,
        status: Cow<'r, str>,
        version: u32,
        updated_at: i64,
    }
    /// The key of a ticket type: its event, and its position in the organiser's order.
    TicketTypeKey {
        event_id: [u8; 16],
        position = "place": u32,
    }
    /// The id of a ticket type. It never changes.
    TicketTypeOrigin {
        id: [u8; 16],
    }
    /// The description of a ticket type. Its price is in the currency of its event.
    TicketTypeDescription<'r> {
        name: Cow<'r, str>,
        price: i64,
        capacity: Option<u32>,
    }
    /// The counters of a ticket type.
    TicketTypeCounters {
        held: u32,
        sold: u32,
    }
    /// The columns of a booking that never change.
    BookingOrigin<'r> {
        id: [u8; 16],
        event_id: [u8; 16],
        user_id: Cow<'r, str>,
        items: Cow<'r, str>,
        currency: Cow<'r, str>,
        total: i64,
        hold_expires_at: i64,
        payment_method: Option<Cow<'r, str>>,
        external_ref: Option<Cow<'r, str>>,
        metadata: Option<Cow<'r, str>>,
        created_at: i64,
    }
    /// An external reference, with the event within which it is unique.
    BookingExternalRef<'r> {
        event_id: [u8; 16],
        external_ref: Cow<'r, str>,
    }
    /// The columns of a booking that change with its state.
    BookingState<'r> {
        status: Cow<'r, str>,
        version: u32,
        last_seq: u64,
        transaction_id: Option<Cow<'r, str>>,
        confirmed_at: Option<i64>,
        cancelled_at: Option<i64>,
        cancellation_reason: Option<Cow<'r, str>>,
        refunded: bool,
        expired_at: Option<i64>,
        updated_at: i64,
    }
    /// The key of a booking, and the version that was loaded: the guard of an update.
    BookingGuard {
        id: [u8; 16],
        loaded_version: u32,
    }
    /// The columns of a refund that never change.
    RefundOrigin<'r> {
        id: [u8; 16],
        booking_id: [u8; 16],
        event_id: [u8; 16],
        transaction_id: Cow<'r, str>,
        amount: i64,
        currency: Cow<'r, str>,
        reason: Cow<'r, str>,
        created_at: i64,
    }
    /// The columns of a refund that its settlement changes.
    RefundState<'r> {
        status: Cow<'r, str>,
        provider_reference: Option<Cow<'r, str>>,
        settled_at: Option<i64>,
    }
    /// The key of a refund, and the status that was loaded: the guard of an update.
    RefundGuard<'r> {
        id: [u8; 16],
        loaded_status: Cow<'r, str>,
    }
    /// An entry of the ledger.
    LedgerEntry<'r> {
        event_id: [u8; 16],
        seq: u64,
        kind = "type": Cow<'r, str>,
        booking_id: Option<[u8; 16]>,
        refund_id: Option<[u8; 16]>,
        lines: Cow<'r, str>,
        quantity: u32,
        from_status: Option<Cow<'r, str>>,
        to_status: Option<Cow<'r, str>>,
        available_after: u32,
        previous_seq: Option<u64>,
        actor: Cow<'r, str>,
        request_id: Cow<'r, str>,
        at: i64,
        trace: Option<Cow<'r, str>>,
    }
    /// The number of tickets that a user holds, and the limit of the event.
    UserLimit<'r> {
        event_id: [u8; 16],
        user_id: Cow<'r, str>,
        tickets: u32,
        max_tickets: Option<u32>,
    }
    /// How far a consumer has processed the ledger of an event.
    CursorPosition<'r> {
        consumer: Cow<'r, str>,
        event_id: [u8; 16],
        destination: i64,
        seq: u64,
    }
    /// A stored response.
    IdempotencyKey<'r> {
        scope: Cow<'r, str>,
        key: Cow<'r, str>,
        fingerprint: Cow<'r, [u8]>,
        response = "answer": Cow<'r, [u8]>,
        created_at: i64,
    }
}

/// Groups of columns that are written together, each with its name in SQL texts.
pub(crate) const NAMES: &[(&str, &[&[ColumnName]])] = &[
    ("booking", &[BookingOrigin::COLUMNS, BookingState::COLUMNS]),
    ("booking_external_ref", &[BookingExternalRef::COLUMNS]),
    ("booking_state", &[BookingState::COLUMNS]),
    ("booking_update", &[BookingGuard::COLUMNS, BookingState::COLUMNS]),
    ("cursor", &[CursorPosition::COLUMNS]),
    ("event", &[EventKey::COLUMNS, EventCounters::COLUMNS, EventTallies::COLUMNS]),
    ("event_counters", &[EventCounters::COLUMNS, EventTallies::COLUMNS]),
    ("event_description", &[EventDescription::COLUMNS]),
    ("event_details", &[EventOrigin::COLUMNS, EventDescription::COLUMNS]),
    ("event_tallies", &[EventTallies::COLUMNS]),
    ("event_update", &[EventGuard::COLUMNS, EventCounters::COLUMNS, EventTallies::COLUMNS]),
    ("idempotency", &[IdempotencyKey::COLUMNS]),
    ("ledger", &[LedgerEntry::COLUMNS]),
    ("refund", &[RefundOrigin::COLUMNS, RefundState::COLUMNS]),
    ("refund_state", &[RefundState::COLUMNS]),
    ("refund_update", &[RefundGuard::COLUMNS, RefundState::COLUMNS]),
    (
        "ticket_type",
        &[
            TicketTypeKey::COLUMNS,
            TicketTypeOrigin::COLUMNS,
            TicketTypeDescription::COLUMNS,
            TicketTypeCounters::COLUMNS,
        ],
    ),
    ("ticket_type_content", &[TicketTypeDescription::COLUMNS, TicketTypeCounters::COLUMNS]),
    ("ticket_type_counters", &[TicketTypeCounters::COLUMNS]),
    ("ticket_type_update", &[TicketTypeKey::COLUMNS, TicketTypeCounters::COLUMNS]),
    ("user_limit", &[UserLimit::COLUMNS]),
];
