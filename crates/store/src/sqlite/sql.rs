//! The statements of the SQLite store, one file each under `sql/sqlite/`.

macro_rules! statements {
    ($($name:ident = $file:literal;)*) => {
        $(pub(super) const $name: &str = include_str!(concat!("../../sql/sqlite/", $file, ".sql"));)*

        /// All statements by file name, for the test that prepares each.
        #[cfg(test)]
        pub(super) const ALL: &[(&str, &str)] = &[$(($file, $name),)*];
    };
}

statements! {
    AUDIT_ENTRIES_BY_BOOKING = "audit_entries_by_booking";
    AUDIT_ENTRY = "audit_entry";
    AUDIT_LEDGER = "audit_ledger";
    AUDIT_TOTALS = "audit_totals";
    AUDIT_USERS = "audit_users";
    BOOKING_INSERT = "booking_insert";
    BOOKING_LIST_ALL = "booking_list_all";
    BOOKING_LIST_IN_STATUS = "booking_list_in_status";
    BOOKING_LIST_OF_EVENT = "booking_list_of_event";
    BOOKING_LIST_OF_EVENT_IN_STATUS = "booking_list_of_event_in_status";
    BOOKING_LIST_OF_USER = "booking_list_of_user";
    BOOKING_LOAD = "booking_load";
    BOOKING_OVERDUE = "booking_overdue";
    BOOKING_OVERDUE_OF_USER = "booking_overdue_of_user";
    BOOKING_UPDATE = "booking_update";
    BOOKING_WINDOW_OF_USER = "booking_window_of_user";
    CHORE_BOOKINGS_IN_STATUS = "chore_bookings_in_status";
    CHORE_CANCELLED_EVENTS = "chore_cancelled_events";
    CHORE_DUE_HOLDS = "chore_due_holds";
    CHORE_PRUNE_KEYS = "chore_prune_keys";
    EVENT_DETAILS_UPSERT = "event_details_upsert";
    EVENT_INSERT = "event_insert";
    EVENT_LIST = "event_list";
    EVENT_LIST_ALL = "event_list_all";
    EVENT_LOAD = "event_load";
    EVENT_STATS = "event_stats";
    EVENT_UPDATE = "event_update";
    IDEMPOTENCY_LOAD = "idempotency_load";
    IDEMPOTENCY_UPSERT = "idempotency_upsert";
    LEDGER_INSERT = "ledger_insert";
    LEDGER_LIST = "ledger_list";
    LEDGER_WITH_BOOKINGS = "ledger_with_bookings";
    PUBLISHED_CURSORS = "published_cursors";
    PUBLISHED_SAVE = "published_save";
    REFUND_FIND = "refund_find";
    REFUND_INSERT = "refund_insert";
    REFUND_LIST = "refund_list";
    REFUND_LIST_IN_STATUS = "refund_list_in_status";
    REFUND_LIST_OF_BOOKING = "refund_list_of_booking";
    REFUND_LOAD = "refund_load";
    REFUND_UPDATE = "refund_update";
    TICKET_TYPE_UPDATE = "ticket_type_update";
    TICKET_TYPE_UPSERT = "ticket_type_upsert";
    TICKET_TYPES_LIST = "ticket_types_list";
    TICKET_TYPES_LOAD = "ticket_types_load";
    UNPUBLISHED_COUNT = "unpublished_count";
    USER_LIMIT_LOAD = "user_limit_load";
    USER_LIMIT_UPSERT = "user_limit_upsert";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_registered_and_every_statement_prepares() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/sql/sqlite");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        files.sort();
        let names: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
        assert_eq!(files, names);

        let mut connection = rusqlite::Connection::open_in_memory().unwrap();
        super::super::schema::migrate(&mut connection).unwrap();
        for (name, sql) in ALL {
            assert!(sql.starts_with("-- "), "{name}: the first line must be a comment");
            connection.prepare(sql).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    /// The cost of a list or a load must not grow with the number of bookings.
    #[test]
    fn no_statement_but_those_of_the_audit_scans_a_table() {
        let mut connection = rusqlite::Connection::open_in_memory().unwrap();
        super::super::schema::migrate(&mut connection).unwrap();
        let lists_all = [
            "audit_entries_by_booking",
            "audit_totals",
            "audit_users",
            "event_list_all",
            "event_stats",
            "unpublished_count",
        ];
        for (name, sql) in ALL.iter().filter(|(name, _)| !lists_all.contains(name)) {
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let nulls = vec![rusqlite::types::Null; plan.parameter_count()];
            let steps =
                plan.query_map(rusqlite::params_from_iter(nulls), |row| row.get::<_, String>(3)).unwrap();
            for step in steps {
                let step = step.unwrap();
                assert!(!step.starts_with("SCAN"), "{name}: {step}");
                assert!(!step.contains("TEMP B-TREE"), "{name}: {step}");
            }
        }
    }
}
