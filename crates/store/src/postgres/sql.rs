//! The statements of the PostgreSQL store, one file each under `sql/postgres/`.

use std::borrow::Cow;

macro_rules! statements {
    ($($name:ident = $file:literal;)*) => {
        /// A statement of the store.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Sql {
            $($name,)*
        }

        impl Sql {
            /// All statements, indexed by discriminant.
            pub(super) const ALL: &[Self] = &[$(Self::$name,)*];

            const TEXTS: &[(&str, &str)] =
                &[$(($file, include_str!(concat!("../../sql/postgres/", $file, ".sql"))),)*];
        }
    };
}

statements! {
    AuditEntries = "audit_entries";
    AuditEntriesByBooking = "audit_entries_by_booking";
    AuditLedger = "audit_ledger";
    AuditTotals = "audit_totals";
    AuditUsers = "audit_users";
    BackendCurrent = "backend_current";
    BackendTerminate = "backend_terminate";
    BookingInsert = "booking_insert";
    BookingListAll = "booking_list_all";
    BookingListInStatus = "booking_list_in_status";
    BookingListOfEvent = "booking_list_of_event";
    BookingListOfEventInStatus = "booking_list_of_event_in_status";
    BookingListOfUser = "booking_list_of_user";
    BookingLoad = "booking_load";
    BookingOverdue = "booking_overdue";
    BookingOverdueOfUser = "booking_overdue_of_user";
    BookingUpdate = "booking_update";
    BookingWindowOfUser = "booking_window_of_user";
    ChoreBookingsInStatus = "chore_bookings_in_status";
    ChoreCancelledEvents = "chore_cancelled_events";
    ChoreDueHolds = "chore_due_holds";
    ChorePruneKeys = "chore_prune_keys";
    CommitEmpty = "commit_empty";
    CommitStatus = "commit_status";
    EventDetailsUpsert = "event_details_upsert";
    EventInsert = "event_insert";
    EventList = "event_list";
    EventListAll = "event_list_all";
    EventLoad = "event_load";
    EventLock = "event_lock";
    EventLockSkipLocked = "event_lock_skip_locked";
    EventStats = "event_stats";
    EventUpdate = "event_update";
    Health = "health";
    IdempotencyExists = "idempotency_exists";
    IdempotencyLoad = "idempotency_load";
    IdempotencyUpsert = "idempotency_upsert";
    LedgerExists = "ledger_exists";
    LedgerInsert = "ledger_insert";
    LedgerList = "ledger_list";
    LedgerWithBookings = "ledger_with_bookings";
    PublishedCursors = "published_cursors";
    PublishedSave = "published_save";
    RefundFind = "refund_find";
    RefundInsert = "refund_insert";
    RefundList = "refund_list";
    RefundListInStatus = "refund_list_in_status";
    RefundListOfBookings = "refund_list_of_bookings";
    RefundLoad = "refund_load";
    RefundUpdate = "refund_update";
    TicketTypeUpdate = "ticket_type_update";
    TicketTypeUpsert = "ticket_type_upsert";
    TxInfo = "tx_info";
    UnpublishedCount = "unpublished_count";
    UserLimitLoad = "user_limit_load";
    UserLimitUpsert = "user_limit_upsert";
}

impl Sql {
    /// The name of the file, without `.sql`.
    #[cfg(test)]
    pub(super) fn name(self) -> &'static str {
        Self::TEXTS[self as usize].0
    }

    /// The SQL text.
    pub(super) fn text(self) -> Cow<'static, str> {
        without_removed_guards(self, Self::TEXTS[self as usize].1)
    }
}

#[cfg(not(feature = "sabotage"))]
fn without_removed_guards(_: Sql, text: &'static str) -> Cow<'static, str> {
    Cow::Borrowed(text)
}

/// The statement, without the row lock or the row count check if a test has removed that guard.
#[cfg(feature = "sabotage")]
fn without_removed_guards(sql: Sql, text: &'static str) -> Cow<'static, str> {
    use domain::sabotage::{Guard, removed};
    if sql == Sql::EventLock && removed(Guard::RowLock) {
        return Cow::Owned(text.replace("FOR UPDATE", ""));
    }
    if removed(Guard::RowCountCheck) {
        return Cow::Owned(text.replace("1 / (count(*) = cardinality($1))::int", "1"));
    }
    Cow::Borrowed(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_registered_and_starts_with_a_comment() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/sql/postgres");
        let files = std::fs::read_dir(folder).unwrap();
        let stem = |file: std::fs::DirEntry| file.path().file_stem().unwrap().to_string_lossy().into_owned();
        let mut files: Vec<String> = files.map(|file| stem(file.unwrap())).collect();
        files.sort();
        let names: Vec<&str> = Sql::ALL.iter().map(|sql| sql.name()).collect();
        assert_eq!(files, names);
        for sql in Sql::ALL {
            assert!(sql.text().starts_with("-- "), "{}", sql.name());
        }
    }

    #[test]
    fn every_write_of_a_batch_counts_its_rows() {
        for sql in Sql::ALL.iter().filter(|sql| {
            let name = sql.name();
            ["_insert", "_update", "_upsert"].iter().any(|verb| name.ends_with(verb))
        }) {
            assert!(sql.text().contains("1 / (count(*) = cardinality($1))::int"), "{}", sql.name());
        }
    }
}
