//! What every [`Store`] must do, as tests over the trait.
//!
//! A store provides a [`Rig`], which is a way to make a fresh one and to reach behind it, and runs every one
//! of [`CASES`] on a rig of its own. A case panics where the store breaks a promise. No case waits for time
//! to pass, and none depends on what the clock says: a rig lets holds fall due.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::EventId;

use crate::Store;

mod batches;
mod books;
mod chores;
mod commands;
mod histories;
mod keys;
mod limits;
mod lists;
mod luck;
mod overdue;
mod paging;
mod payments;
mod published;
mod races;
mod round_trip;
mod settlements;
pub mod stage;

use batches::{
    a_batch_of_refusals_writes_nothing, a_batch_spans_many_events, a_booking_lives_its_life_in_one_batch,
    a_full_batch_is_carried_out, an_edit_reaches_the_commands_after_it, an_empty_batch_has_no_replies,
    commands_on_one_booking_take_effect_in_their_order, commands_take_effect_in_their_order,
};
use books::{the_audit_counts_what_it_saw, the_audit_finds_what_was_tampered_with};
use chores::{
    due_holds_are_listed_oldest_first, events_are_found_by_name,
    live_bookings_of_cancelled_events_are_listed, statistics_add_up_by_currency,
};
use commands::{
    a_booking_named_with_another_event_is_not_found, an_edit_that_changes_nothing_writes_nothing,
    an_id_that_is_taken_fails_alone, every_command_is_carried_out,
    r2_deadlines_go_by_the_clock_not_by_the_ledger, unknown_ids_are_not_found,
};
use histories::histories_at_random_keep_the_books_clean;
use keys::{
    a_kept_answer_is_given_again, a_key_used_by_many_at_once_is_carried_out_once,
    kept_answers_are_forgotten_a_few_at_a_time, only_what_was_decided_is_kept,
};
use limits::{
    a_limit_holds_for_late_payments, a_limit_holds_within_and_across_batches,
    a_limit_may_be_raised_and_lifted, tickets_given_back_may_be_booked_again,
};
use lists::{
    bookings_are_listed_by_event, bookings_are_listed_by_user, bookings_are_listed_in_all,
    events_are_listed_newest_first, refunds_are_listed_by_status, the_ledger_is_listed_oldest_first,
};
use overdue::{
    a_hold_touched_by_its_batch_is_not_freed_again, a_hold_with_several_types_frees_them_all,
    holds_are_freed_by_event_oldest_first, holds_are_freed_by_ticket_type, holds_are_freed_by_user,
    holds_are_freed_page_after_page, more_holds_than_a_batch_frees_are_carried_over,
    only_what_is_overdue_is_freed, orders_of_a_batch_share_what_is_freed,
    several_scopes_are_freed_for_one_order,
};
use paging::pages_have_no_gaps_while_rows_come_in;
use payments::{
    a_confirmation_repeated_changes_nothing, a_late_payment_frees_overdue_holds,
    a_late_payment_is_refunded_once, a_late_payment_takes_its_tickets_again, a_payment_is_named_exactly,
    a_refunded_payment_is_never_accepted_again, two_late_payments_fight_for_one_place,
};
use published::{entries_are_read_with_their_bookings, events_behind_a_stream_are_listed};
use races::{
    a_call_that_is_dropped_is_all_or_nothing, one_payment_reported_by_many_is_taken_once,
    tickets_are_never_given_out_twice, users_never_exceed_their_limit,
};
use round_trip::{
    bookings_read_back_in_every_state, events_read_back, ledger_entries_read_back, refunds_read_back,
    revenue_beyond_64_bits_reads_back, traces_read_back,
};
use settlements::{
    a_failed_refund_may_succeed_later, a_refund_is_settled_once, a_refund_lives_its_life_in_one_batch,
};

/// A store under test.
#[async_trait]
pub trait Rig: Send + Sync {
    /// The store; every call answers the same one. It is empty when a case begins.
    fn store(&self) -> Arc<dyn Store>;

    /// Lets time pass for the holds: from then on those that had no more than `by` left are overdue, and
    /// the rest is nearer to it by as much. Whole seconds; never back.
    ///
    /// With a clock of its own a rig moves that clock. Where the clock is the database's, it moves the
    /// deadlines of all pending bookings back by as much instead. So after a call no case compares the
    /// deadline of a booking with the one it had before.
    async fn advance(&self, by: Duration);

    /// Runs a statement behind the store's back, with `:event` in it replaced by the event's id as the
    /// database spells it, and says whether that is possible: if not, the case that needs it ends there.
    async fn tamper(&self, sql: &str, event: EventId) -> bool;
}

type Run<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// One promise, as a test.
pub struct Case {
    /// The promise, as an identifier.
    pub name: &'static str,
    run: for<'a> fn(&'a dyn Rig) -> Run<'a>,
}

impl Case {
    /// Tests the store behind `rig`, which no other case has used; panics if the promise is broken.
    pub async fn run(&self, rig: &dyn Rig) {
        (self.run)(rig).await;
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Case").field(&self.name).finish()
    }
}

/// The table of the suite. A case left out of it is dead code, which the compiler reports.
macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        /// All cases of the suite.
        pub const CASES: &[Case] = &[$(Case { name: stringify!($name), run: |rig| Box::pin($name(rig)) }),+];
    };
}

cases![
    events_read_back,
    bookings_read_back_in_every_state,
    refunds_read_back,
    ledger_entries_read_back,
    traces_read_back,
    revenue_beyond_64_bits_reads_back,
    every_command_is_carried_out,
    r2_deadlines_go_by_the_clock_not_by_the_ledger,
    unknown_ids_are_not_found,
    an_id_that_is_taken_fails_alone,
    a_booking_named_with_another_event_is_not_found,
    an_edit_that_changes_nothing_writes_nothing,
    an_empty_batch_has_no_replies,
    commands_take_effect_in_their_order,
    an_edit_reaches_the_commands_after_it,
    a_batch_spans_many_events,
    a_full_batch_is_carried_out,
    a_batch_of_refusals_writes_nothing,
    a_booking_lives_its_life_in_one_batch,
    commands_on_one_booking_take_effect_in_their_order,
    only_what_is_overdue_is_freed,
    holds_are_freed_by_event_oldest_first,
    holds_are_freed_by_ticket_type,
    a_hold_with_several_types_frees_them_all,
    holds_are_freed_by_user,
    several_scopes_are_freed_for_one_order,
    holds_are_freed_page_after_page,
    orders_of_a_batch_share_what_is_freed,
    a_hold_touched_by_its_batch_is_not_freed_again,
    more_holds_than_a_batch_frees_are_carried_over,
    a_limit_holds_within_and_across_batches,
    tickets_given_back_may_be_booked_again,
    a_limit_holds_for_late_payments,
    a_limit_may_be_raised_and_lifted,
    a_confirmation_repeated_changes_nothing,
    a_payment_is_named_exactly,
    a_late_payment_takes_its_tickets_again,
    a_late_payment_frees_overdue_holds,
    a_late_payment_is_refunded_once,
    a_refunded_payment_is_never_accepted_again,
    two_late_payments_fight_for_one_place,
    a_refund_is_settled_once,
    a_failed_refund_may_succeed_later,
    a_refund_lives_its_life_in_one_batch,
    a_kept_answer_is_given_again,
    only_what_was_decided_is_kept,
    a_key_used_by_many_at_once_is_carried_out_once,
    kept_answers_are_forgotten_a_few_at_a_time,
    due_holds_are_listed_oldest_first,
    live_bookings_of_cancelled_events_are_listed,
    statistics_add_up_by_currency,
    events_are_found_by_name,
    events_are_listed_newest_first,
    bookings_are_listed_by_user,
    bookings_are_listed_by_event,
    bookings_are_listed_in_all,
    refunds_are_listed_by_status,
    the_ledger_is_listed_oldest_first,
    pages_have_no_gaps_while_rows_come_in,
    tickets_are_never_given_out_twice,
    users_never_exceed_their_limit,
    one_payment_reported_by_many_is_taken_once,
    a_call_that_is_dropped_is_all_or_nothing,
    histories_at_random_keep_the_books_clean,
    events_behind_a_stream_are_listed,
    entries_are_read_with_their_bookings,
    the_audit_counts_what_it_saw,
    the_audit_finds_what_was_tampered_with,
];
