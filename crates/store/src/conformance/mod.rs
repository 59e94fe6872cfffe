//! The conformance suite: tests of the guarantees that every [`Store`] must give.
//!
//! The tests of a store implement a [`Harness`], which creates an empty store and can change its database
//! directly, and run each of [`CASES`] on a new harness. A case panics if the store breaks a guarantee. No
//! case waits for time to pass or depends on the current time: the harness makes holds overdue.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::EventId;

use crate::Store;
use crate::sql::{Dialect, Sql};

mod audit;
mod batches;
mod chores;
mod commands;
mod cursors;
mod external_refs;
pub mod fixture;
mod histories;
mod keys;
mod limits;
mod lists;
mod overdue;
mod paging;
mod payments;
mod races;
mod serialization;
mod settlements;

use audit::{the_audit_counts_rows, the_audit_detects_tampering};
use batches::{
    a_batch_of_refusals_writes_nothing, a_batch_spans_many_events, a_full_batch_is_executed,
    an_edit_applies_to_later_commands_of_its_batch, an_empty_batch_has_no_replies,
    commands_are_applied_in_order, commands_on_one_booking_are_applied_in_order,
    one_batch_may_contain_a_booking_lifecycle,
};
use chores::{
    due_holds_are_listed_oldest_first, events_are_found_by_ids, live_bookings_of_cancelled_events_are_listed,
    statistics_add_up_by_currency,
};
use commands::{
    a_booking_of_another_event_is_not_found, a_duplicate_id_fails_only_its_command,
    an_edit_that_changes_nothing_writes_nothing, every_command_is_executed,
    r2_deadlines_go_by_the_clock_not_by_the_ledger, unknown_ids_are_not_found,
};
use cursors::{
    consumers_have_their_own_cursors, entries_are_read_with_their_bookings,
    entries_of_unknown_kinds_are_carried, events_behind_a_stream_are_listed,
};
use external_refs::{
    an_external_reference_is_unique_within_its_event, one_of_concurrent_orders_gets_an_external_reference,
};
use histories::random_histories_pass_the_audit;
use keys::{
    a_stored_response_is_replayed, concurrent_commands_with_one_key_run_once,
    only_decided_commands_store_a_response, stored_responses_are_pruned_in_bounded_steps,
};
use limits::{
    a_limit_holds_for_late_payments, a_limit_holds_within_and_across_batches,
    a_limit_may_be_raised_and_lifted, returned_tickets_can_be_booked_again,
};
use lists::{
    all_bookings_are_listed, bookings_are_listed_by_event, bookings_are_listed_by_user,
    events_are_listed_newest_first, refunds_are_listed_by_status, the_ledger_is_listed_oldest_first,
};
use overdue::{
    a_hold_changed_by_its_batch_is_not_freed_again, a_hold_with_several_types_frees_them_all,
    commands_are_requeued_when_a_batch_frees_its_maximum, holds_are_freed_by_event_oldest_first,
    holds_are_freed_by_ticket_type, holds_are_freed_by_user, holds_are_freed_page_by_page,
    only_overdue_holds_are_freed, orders_of_a_batch_share_freed_tickets,
    several_scopes_are_freed_for_one_order,
};
use paging::pages_have_no_gaps_during_inserts;
use payments::{
    a_late_payment_frees_overdue_holds, a_late_payment_is_refunded_once,
    a_late_payment_reacquires_its_tickets, a_refunded_payment_is_never_accepted_again,
    a_repeated_confirmation_changes_nothing, only_one_of_two_late_payments_gets_the_last_ticket,
    payment_ids_are_compared_exactly,
};
use races::{
    a_dropped_call_commits_fully_or_not_at_all, a_payment_reported_concurrently_is_accepted_once,
    tickets_are_never_sold_twice, users_never_exceed_their_limit,
};
use serialization::{
    bookings_read_back_in_every_state, events_read_back, ledger_entries_read_back, refunds_read_back,
    revenue_beyond_64_bits_reads_back, traces_read_back,
};
use settlements::{
    a_failed_refund_may_succeed_later, a_refund_is_settled_once, one_batch_may_contain_a_refund_lifecycle,
};

/// Access to a store under test.
#[async_trait]
pub trait Harness: Send + Sync {
    /// The store; every call returns the same one. It is empty when a case begins.
    fn store(&self) -> Arc<dyn Store>;

    /// Advances the time for holds by `by`, a number of whole seconds: holds with no more time left are
    /// overdue, the others have that much less time.
    ///
    /// A harness with its own clock advances that clock. If the database has the clock, the harness subtracts
    /// `by` from the deadlines of all pending bookings instead. Therefore no case compares the deadline of a
    /// booking with the one before a call.
    async fn advance(&self, by: Duration);

    /// Executes a statement directly on the database, with `:event` replaced by the SQL literal of the
    /// event's id. Returns false if that is impossible: the case then ends.
    async fn execute_directly(&self, sql: &str, event: EventId) -> bool;
}

/// A harness for tests that neither advance the time nor change rows directly.
pub struct StoreHarness<S>(pub Arc<S>);

#[async_trait]
impl<S: Store + 'static> Harness for StoreHarness<S> {
    fn store(&self) -> Arc<dyn Store> {
        self.0.clone()
    }

    async fn advance(&self, _by: Duration) {
        unreachable!("a test that advances the time needs a harness with a clock");
    }

    async fn execute_directly(&self, _sql: &str, _event: EventId) -> bool {
        false
    }
}

type Run<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// The test of one guarantee.
pub struct Case {
    /// The guarantee, as an identifier.
    pub name: &'static str,
    run: for<'a> fn(&'a dyn Harness) -> Run<'a>,
}

impl Case {
    /// Runs the test on the store of `harness`, which no other case has used. Panics if the guarantee is
    /// broken.
    pub async fn run(&self, harness: &dyn Harness) {
        (self.run)(harness).await;
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Case").field(&self.name).finish()
    }
}

/// The list of cases. A case that is missing in it is dead code, which the compiler reports.
macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        /// All cases of the suite.
        pub const CASES: &[Case] =
            &[$(Case { name: stringify!($name), run: |harness| Box::pin($name(harness)) }),+];
    };
}

cases![
    events_read_back,
    bookings_read_back_in_every_state,
    refunds_read_back,
    ledger_entries_read_back,
    traces_read_back,
    revenue_beyond_64_bits_reads_back,
    every_command_is_executed,
    r2_deadlines_go_by_the_clock_not_by_the_ledger,
    unknown_ids_are_not_found,
    a_duplicate_id_fails_only_its_command,
    a_booking_of_another_event_is_not_found,
    an_edit_that_changes_nothing_writes_nothing,
    an_empty_batch_has_no_replies,
    commands_are_applied_in_order,
    an_edit_applies_to_later_commands_of_its_batch,
    a_batch_spans_many_events,
    a_full_batch_is_executed,
    a_batch_of_refusals_writes_nothing,
    one_batch_may_contain_a_booking_lifecycle,
    commands_on_one_booking_are_applied_in_order,
    only_overdue_holds_are_freed,
    holds_are_freed_by_event_oldest_first,
    holds_are_freed_by_ticket_type,
    a_hold_with_several_types_frees_them_all,
    holds_are_freed_by_user,
    several_scopes_are_freed_for_one_order,
    holds_are_freed_page_by_page,
    orders_of_a_batch_share_freed_tickets,
    a_hold_changed_by_its_batch_is_not_freed_again,
    commands_are_requeued_when_a_batch_frees_its_maximum,
    a_limit_holds_within_and_across_batches,
    returned_tickets_can_be_booked_again,
    a_limit_holds_for_late_payments,
    a_limit_may_be_raised_and_lifted,
    a_repeated_confirmation_changes_nothing,
    payment_ids_are_compared_exactly,
    a_late_payment_reacquires_its_tickets,
    a_late_payment_frees_overdue_holds,
    a_late_payment_is_refunded_once,
    a_refunded_payment_is_never_accepted_again,
    only_one_of_two_late_payments_gets_the_last_ticket,
    a_refund_is_settled_once,
    a_failed_refund_may_succeed_later,
    one_batch_may_contain_a_refund_lifecycle,
    a_stored_response_is_replayed,
    only_decided_commands_store_a_response,
    concurrent_commands_with_one_key_run_once,
    stored_responses_are_pruned_in_bounded_steps,
    due_holds_are_listed_oldest_first,
    live_bookings_of_cancelled_events_are_listed,
    statistics_add_up_by_currency,
    events_are_found_by_ids,
    events_are_listed_newest_first,
    bookings_are_listed_by_user,
    bookings_are_listed_by_event,
    all_bookings_are_listed,
    refunds_are_listed_by_status,
    the_ledger_is_listed_oldest_first,
    pages_have_no_gaps_during_inserts,
    tickets_are_never_sold_twice,
    users_never_exceed_their_limit,
    a_payment_reported_concurrently_is_accepted_once,
    a_dropped_call_commits_fully_or_not_at_all,
    random_histories_pass_the_audit,
    an_external_reference_is_unique_within_its_event,
    one_of_concurrent_orders_gets_an_external_reference,
    events_behind_a_stream_are_listed,
    consumers_have_their_own_cursors,
    entries_are_read_with_their_bookings,
    entries_of_unknown_kinds_are_carried,
    the_audit_counts_rows,
    the_audit_detects_tampering,
];

/// The names and the texts of the statements of a database: `sqlite` or `postgres`.
pub fn statements(database: &str) -> Vec<(&'static str, String)> {
    let dialect = if database == "sqlite" { Dialect::Sqlite } else { Dialect::Postgres };
    Sql::of(dialect).map(|sql| (sql.name(), sql.text(dialect).into_owned())).collect()
}
