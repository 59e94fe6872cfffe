//! Random events and random steps, and the outcomes that they must reach.

use proptest::prelude::*;

use crate::model::{Amount, CancelActor, DetailsModel, Kind, SalesState};
use crate::world::World;

const HOUR: i64 = 3600;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    // A booking is a random number; the run maps it to one of the bookings made so far.
    Book {
        user: u8,
        tickets: Vec<u32>,
        expected: Amount,
    },
    Confirm {
        booking: u8,
        transaction: u8,
        amount: Amount,
    },
    Cancel {
        booking: u8,
        by: CancelActor,
    },
    Expire {
        booking: u8,
    },
    Settle {
        booking: u8,
        transaction: u8,
        succeeded: bool,
        reference: u8,
    },
    Edit {
        edits: Vec<Edit>,
        if_match: Option<bool>,
    },
    Wait {
        seconds: i64,
    },
    /// Waits until an instant that matters (the start, the cut-off or the end of a recent hold) plus `micros`
    /// microseconds.
    WaitFor {
        edge: usize,
        micros: i64,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Capacity(u32),
    KindCapacity(usize, Option<u32>),
    Price(usize, i64),
    PerBooking(u32),
    PerUser(Option<u32>),
    Hold(u32),
    CutOff(u32),
    /// Instants are seconds from now.
    Start(i64),
    SalesStart(Option<i64>),
    SalesEnd(Option<i64>),
    Status(SalesState),
}

fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![6 => Just(Amount::Omitted), 3 => Just(Amount::Correct), 1 => Just(Amount::Wrong)]
}

fn edit() -> impl Strategy<Value = Edit> {
    let own = || prop_oneof![1 => Just(None), 4 => (0u32..9).prop_map(Some)];
    let instant = || prop_oneof![1 => Just(None), 1 => (-2 * HOUR..2 * HOUR).prop_map(Some)];
    let status = prop_oneof![
        9 => Just(SalesState::OnSale),
        4 => Just(SalesState::Paused),
        2 => Just(SalesState::Cancelled),
    ];
    prop_oneof![
        4 => (0u32..14).prop_map(Edit::Capacity),
        2 => (0usize..3, own()).prop_map(|(index, capacity)| Edit::KindCapacity(index, capacity)),
        1 => (0usize..3, 0i64..3).prop_map(|(index, price)| Edit::Price(index, price)),
        1 => (0u32..9).prop_map(Edit::PerBooking),
        1 => own().prop_map(Edit::PerUser),
        1 => (0u32..3600).prop_map(Edit::Hold),
        1 => (0u32..7200).prop_map(Edit::CutOff),
        1 => (-HOUR..30 * HOUR).prop_map(Edit::Start),
        1 => instant().prop_map(Edit::SalesStart),
        1 => instant().prop_map(Edit::SalesEnd),
        4 => status.prop_map(Edit::Status),
    ]
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let by = prop_oneof![
        6 => (0u8..3).prop_map(CancelActor::User),
        1 => Just(CancelActor::Service),
        1 => Just(CancelActor::Admin),
        1 => Just(CancelActor::System),
    ];
    let count = prop_oneof![2 => Just(0u32), 4 => Just(1), 2 => Just(2), 1 => Just(3)];
    let tickets = proptest::collection::vec(count, 3);
    let if_match = prop_oneof![8 => Just(None), 1 => Just(Some(true)), 1 => Just(Some(false))];
    prop_oneof![
        12 => (0u8..3, tickets, amount())
            .prop_map(|(user, tickets, expected)| Step::Book { user, tickets, expected }),
        12 => (any::<u8>(), 0u8..3, amount()).prop_map(|(booking, transaction, amount)| {
            Step::Confirm { booking, transaction, amount }
        }),
        6 => (any::<u8>(), by).prop_map(|(booking, by)| Step::Cancel { booking, by }),
        7 => any::<u8>().prop_map(|booking| Step::Expire { booking }),
        8 => (any::<u8>(), 0u8..3, any::<bool>(), 0u8..3).prop_map(
            |(booking, transaction, succeeded, reference)| {
                Step::Settle { booking, transaction, succeeded, reference }
            }
        ),
        4 => (proptest::collection::vec(edit(), 0..3), if_match)
            .prop_map(|(edits, if_match)| Step::Edit { edits, if_match }),
        6 => (-HOUR..2 * HOUR).prop_map(|seconds| Step::Wait { seconds }),
        4 => (0usize..24, -1i64..2).prop_map(|(edge, micros)| Step::WaitFor { edge, micros }),
    ]
}

pub(crate) fn details() -> impl Strategy<Value = DetailsModel> {
    let own = || prop_oneof![1 => Just(None), 1 => (2u32..7).prop_map(Some)];
    let kinds = proptest::collection::vec((0i64..3, own()), 1..4);
    let limits = (3u32..9, own());
    (2u32..10, kinds, limits, 1u32..3600, 0u32..7200, 6 * HOUR..30 * HOUR).prop_map(
        |(capacity, kinds, (per_booking, per_user), hold, cutoff, starts)| DetailsModel {
            capacity,
            kinds: kinds.into_iter().map(|(price, capacity)| Kind { price, capacity }).collect(),
            per_booking,
            per_user,
            starts: World::empty().now.micros() + starts * 1_000_000,
            sales_start: None,
            sales_end: None,
            hold,
            cutoff,
            status: SalesState::OnSale,
        },
    )
}

/// The outcomes that the random histories must reach.
pub(crate) const REQUIRED_OUTCOMES: &[&str] = &[
    "pending",
    "pending after freeing",
    "confirmed",
    "taken again",
    "taken again after freeing",
    "unchanged",
    "cancelled",
    "expired",
    "event",
    "not_found",
    "validation_failed",
    "sold_out",
    "insufficient_availability",
    "sales_not_open",
    "sales_closed",
    "event_started",
    "event_paused",
    "event_cancelled",
    "event_cancelled with refund",
    "event_cancelled with the same refund",
    "event_cancelled with the same settled refund",
    "hold_expired with refund",
    "hold_expired with the same refund",
    "hold_expired with the same settled refund",
    "invalid_state",
    "invalid_state with refund",
    "invalid_state with the same refund",
    "invalid_state with the same settled refund",
    "refund settled as succeeded",
    "refund settled as failed",
    "refund settled as succeeded after it failed",
    "late refund settled as succeeded",
    "late refund settled as failed",
    "late refund settled as succeeded after it failed",
    "refund settled as before",
    "refund paid out already",
    "no such refund",
    "cancel_cutoff_passed",
    "capacity_in_use",
    "version_mismatch",
    "amount_mismatch",
    "booking_limit_exceeded",
];
