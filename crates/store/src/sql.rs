//! The statements of the stores, one file each under `sql/`.
//!
//! A statement is in `sql/shared/` if it is the same for both databases, otherwise in `sql/sqlite/`,
//! `sql/postgres/` or both. Columns are not listed in a statement, but named by their group in
//! [`crate::columns`]; this is expanded when the program starts:
//!
//! | in the file | expanded for `{refund_state}` |
//! |---|---|
//! | `{refund_state}` | `status, provider_reference, settled_at` |
//! | `{r.refund_state}` | `r.status, r.provider_reference, r.settled_at` |
//! | `{refund_state ?3}` | `?3, ?4, ?5` |
//! | `{refund_state $3}` | `$3::text[], $4::text[], $5::bigint[]` |
//! | `{refund_state = ?3}` | `status = ?3, provider_reference = ?4, settled_at = ?5` |
//! | `{refund_state = n}` | `status = n.status, …` |
//! | `{guard status-check: …}` | the condition; always true if a test has removed this guard |
//! | `{lock row-lock: …}` | the clause; nothing if a test has removed this guard |
//! | `{count of written}` | a check that the statement has written each of its rows |
//!
//! Shared statements have parameters `?1`, which are `$1` for PostgreSQL.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::LazyLock;

use domain::guard;
use domain::sabotage::{Guard, removed};

use crate::cell::{ColumnName, Kind};
use crate::columns::NAMES;

/// The SQL dialect of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

macro_rules! statements {
    ($($name:ident = $file:literal $($folder:literal)+;)*) => {
        /// A statement of a store.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Sql {
            $($name,)*
        }

        impl Sql {
            /// All statements, indexed by discriminant.
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            /// For each statement, the name of its file without `.sql`, and its texts by folder.
            const FILES: &[(&str, &[(&str, &str)])] = &[$((
                $file,
                &[$(($folder, include_str!(concat!("../sql/", $folder, "/", $file, ".sql"))),)+],
            ),)*];
        }
    };
}

statements! {
    AuditEntries = "audit_entries" "postgres";
    AuditEntriesByBooking = "audit_entries_by_booking" "shared";
    AuditEntry = "audit_entry" "sqlite";
    AuditLedger = "audit_ledger" "shared";
    AuditTotals = "audit_totals" "shared";
    AuditUsers = "audit_users" "sqlite" "postgres";
    BackendCurrent = "backend_current" "postgres";
    BackendTerminate = "backend_terminate" "postgres";
    BookingExternalRefs = "booking_external_refs" "sqlite" "postgres";
    BookingInsert = "booking_insert" "sqlite" "postgres";
    BookingListAll = "booking_list_all" "sqlite" "postgres";
    BookingListByExternalRef = "booking_list_by_external_ref" "sqlite" "postgres";
    BookingListInStatus = "booking_list_in_status" "sqlite" "postgres";
    BookingListOfEvent = "booking_list_of_event" "sqlite" "postgres";
    BookingListOfEventInStatus = "booking_list_of_event_in_status" "sqlite" "postgres";
    BookingListOfUser = "booking_list_of_user" "sqlite" "postgres";
    BookingLoad = "booking_load" "sqlite" "postgres";
    BookingOverdue = "booking_overdue" "sqlite" "postgres";
    BookingOverdueOfUser = "booking_overdue_of_user" "sqlite" "postgres";
    BookingUpdate = "booking_update" "sqlite" "postgres";
    BookingWindowOfUser = "booking_window_of_user" "sqlite" "postgres";
    ChoreBookingsInStatus = "chore_bookings_in_status" "sqlite" "postgres";
    ChoreCancelledEvents = "chore_cancelled_events" "sqlite" "postgres";
    ChoreDueHolds = "chore_due_holds" "sqlite" "postgres";
    ChorePruneKeys = "chore_prune_keys" "sqlite" "postgres";
    CommitEmpty = "commit_empty" "postgres";
    CommitStatus = "commit_status" "postgres";
    CursorList = "cursor_list" "sqlite" "postgres";
    CursorPendingCount = "cursor_pending_count" "sqlite" "postgres";
    CursorUpsert = "cursor_upsert" "sqlite" "postgres";
    EventDetailsUpsert = "event_details_upsert" "sqlite" "postgres";
    EventInsert = "event_insert" "sqlite" "postgres";
    EventList = "event_list" "sqlite" "postgres";
    EventListAll = "event_list_all" "shared";
    EventLoad = "event_load" "sqlite" "postgres";
    EventLock = "event_lock" "postgres";
    EventLockSkipLocked = "event_lock_skip_locked" "postgres";
    EventStats = "event_stats" "shared";
    EventUpdate = "event_update" "sqlite" "postgres";
    Health = "health" "postgres";
    IdempotencyExists = "idempotency_exists" "postgres";
    IdempotencyLoad = "idempotency_load" "sqlite" "postgres";
    IdempotencyUpsert = "idempotency_upsert" "sqlite" "postgres";
    LedgerExists = "ledger_exists" "postgres";
    LedgerInsert = "ledger_insert" "sqlite" "postgres";
    LedgerList = "ledger_list" "shared";
    LedgerWithBookings = "ledger_with_bookings" "shared";
    RefundFind = "refund_find" "shared";
    RefundInsert = "refund_insert" "sqlite" "postgres";
    RefundList = "refund_list" "sqlite" "postgres";
    RefundListInStatus = "refund_list_in_status" "sqlite" "postgres";
    RefundListOfBooking = "refund_list_of_booking" "sqlite";
    RefundListOfBookings = "refund_list_of_bookings" "postgres";
    RefundLoad = "refund_load" "sqlite" "postgres";
    RefundUpdate = "refund_update" "sqlite" "postgres";
    TicketTypeUpdate = "ticket_type_update" "sqlite" "postgres";
    TicketTypeUpsert = "ticket_type_upsert" "sqlite" "postgres";
    TicketTypesList = "ticket_types_list" "sqlite";
    TicketTypesLoad = "ticket_types_load" "sqlite";
    TxInfo = "tx_info" "postgres";
    UserLimitLoad = "user_limit_load" "sqlite" "postgres";
    UserLimitUpsert = "user_limit_upsert" "sqlite" "postgres";
}

/// The expanded texts, indexed by statement; empty for a statement of another database.
static SQLITE: LazyLock<Vec<String>> = LazyLock::new(|| expand_all(Dialect::Sqlite));
static POSTGRES: LazyLock<Vec<String>> = LazyLock::new(|| expand_all(Dialect::Postgres));

impl Sql {
    /// The statements of a database.
    pub(crate) fn of(dialect: Dialect) -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(move |sql| sql.file(dialect).is_some())
    }

    /// The SQL text for a database; empty if the statement is not for this database.
    pub(crate) fn text(self, dialect: Dialect) -> Cow<'static, str> {
        if cfg!(feature = "sabotage") {
            return Cow::Owned(self.expand(dialect));
        }
        let texts = match dialect {
            Dialect::Sqlite => &SQLITE,
            Dialect::Postgres => &POSTGRES,
        };
        Cow::Borrowed(&texts[self as usize])
    }

    /// The name of the file, without `.sql`.
    #[cfg(any(test, feature = "conformance"))]
    pub(crate) fn name(self) -> &'static str {
        Self::FILES[self as usize].0
    }

    fn file(self, dialect: Dialect) -> Option<&'static str> {
        let folder = match dialect {
            Dialect::Sqlite => "sqlite",
            Dialect::Postgres => "postgres",
        };
        let (_, texts) = Self::FILES[self as usize];
        texts.iter().find(|(found, _)| *found == folder || *found == "shared").map(|(_, text)| *text)
    }

    fn expand(self, dialect: Dialect) -> String {
        self.file(dialect).map(|text| expand(text, dialect)).unwrap_or_default()
    }
}

fn expand_all(dialect: Dialect) -> Vec<String> {
    Sql::ALL.iter().map(|sql| sql.expand(dialect)).collect()
}

/// Replaces everything that is in braces. Text that is not understood is left as it is, and fails when the
/// statement is prepared.
fn expand(text: &str, dialect: Dialect) -> String {
    let mut expanded = String::with_capacity(2 * text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (inside, after) = after.split_once('}').unwrap_or((after, ""));
        expanded.push_str(before);
        match placeholder(inside, dialect) {
            Some(columns) => expanded.push_str(&columns),
            None => _ = write!(expanded, "{{{inside}}}"),
        }
        rest = after;
    }
    expanded.push_str(rest);
    if dialect == Dialect::Postgres { expanded.replace('?', "$") } else { expanded }
}

fn placeholder(inside: &str, dialect: Dialect) -> Option<String> {
    if let Some((guard, condition)) = inside.strip_prefix("guard ").and_then(|rest| rest.split_once(": ")) {
        // The parameters stay in use.
        return Some(if is_removed(guard)? {
            format!("({condition}) IS NOT NULL")
        } else {
            condition.to_owned()
        });
    }
    if let Some((guard, clause)) = inside.strip_prefix("lock ").and_then(|rest| rest.split_once(": ")) {
        return Some(if is_removed(guard)? { String::new() } else { clause.to_owned() });
    }
    if let Some(table) = inside.strip_prefix("count of ") {
        let check = if guard!(RowCountCheck) { "1 / (count(*) = cardinality($1))::int" } else { "1" };
        return Some(format!("SELECT {check} FROM {table}"));
    }
    let (columns, value) = match inside.split_once(' ') {
        Some((columns, value)) => (columns, Some(value)),
        None => (inside, None),
    };
    let (table, columns) = match columns.split_once('.') {
        Some((table, columns)) => (Some(table), columns),
        None => (None, columns),
    };
    let (_, groups) = NAMES.iter().find(|(name, _)| *name == columns)?;
    let columns: Vec<ColumnName> = groups.iter().copied().flatten().copied().collect();
    expand_columns(&columns, table, value, dialect)
}

fn is_removed(name: &str) -> Option<bool> {
    Guard::ALL.iter().find(|guard| guard.name() == name).map(|guard| removed(*guard))
}

fn expand_columns(
    columns: &[ColumnName],
    table: Option<&str>,
    value: Option<&str>,
    dialect: Dialect,
) -> Option<String> {
    let list = |item: &dyn Fn(usize, ColumnName) -> String| {
        let items: Vec<String> =
            columns.iter().enumerate().map(|(index, column)| item(index, *column)).collect();
        Some(items.join(", "))
    };
    let first = |digits: &str| digits.parse::<usize>().ok();
    let Some(value) = value else {
        return match table {
            None => list(&|_, (name, _)| name.to_owned()),
            Some(table) => list(&|_, (name, kind)| match (kind, dialect) {
                (Kind::Decimal, Dialect::Postgres) => format!("{table}.{name}::text"),
                _ => format!("{table}.{name}"),
            }),
        };
    };
    if let Some(first_parameter) = value.strip_prefix("= ?") {
        let first = first(first_parameter)?;
        return list(&|index, (name, _)| format!("{name} = ?{}", first + index));
    }
    if let Some(table) = value.strip_prefix("= ") {
        return list(&|_, (name, _)| format!("{name} = {table}.{name}"));
    }
    if let Some(first_parameter) = value.strip_prefix('?') {
        let first = first(first_parameter)?;
        return list(&|index, _| format!("?{}", first + index));
    }
    let first = first(value.strip_prefix('$')?)?;
    list(&|index, (_, kind)| format!("${}::{}", first + index, array_type(kind)))
}

/// The type of an array parameter in PostgreSQL.
fn array_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Id => "uuid[]",
        Kind::Int => "bigint[]",
        Kind::Bool => "boolean[]",
        Kind::Text => "text[]",
        Kind::Decimal => "text[]::numeric[]",
        Kind::Bytes => "bytea[]",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_file_is_registered_and_starts_with_a_comment() {
        let mut found = BTreeSet::new();
        for folder in ["shared", "sqlite", "postgres"] {
            let path = format!("{}/sql/{folder}", env!("CARGO_MANIFEST_DIR"));
            for file in std::fs::read_dir(path).unwrap() {
                let path = file.unwrap().path();
                found.insert((path.file_stem().unwrap().to_string_lossy().into_owned(), folder));
            }
        }
        let files =
            Sql::FILES.iter().flat_map(|(name, texts)| texts.iter().map(|(folder, _)| (*name, *folder)));
        assert_eq!(found, files.map(|(name, folder)| (name.to_owned(), folder)).collect());
        for dialect in [Dialect::Sqlite, Dialect::Postgres] {
            for sql in Sql::of(dialect) {
                let text = sql.text(dialect);
                let is_expanded = !text.contains('{') || sql == Sql::Health;
                assert!(text.starts_with("-- ") && is_expanded, "{}: {text}", sql.name());
            }
        }
    }

    #[test]
    fn a_statement_that_is_the_same_for_both_databases_is_shared() {
        for (name, texts) in Sql::FILES {
            if let [(_, one), (_, other)] = texts {
                let statement = |text: &str| {
                    let lines = text.lines().filter(|line| !line.starts_with("--"));
                    lines.collect::<Vec<_>>().join("\n").replace('?', "$")
                };
                assert_ne!(statement(one), statement(other), "{name}");
            }
        }
    }

    #[test]
    fn columns_are_listed_nowhere_else() {
        for (name, texts) in Sql::FILES {
            for (folder, text) in *texts {
                assert!(!text.contains("hold_expires_at, payment_method"), "{folder}/{name}");
                assert!(!text.contains("cancelled, expired"), "{folder}/{name}");
                assert!(!text.contains("currency, status"), "{folder}/{name}");
                assert!(!text.contains("booking_id, refund_id"), "{folder}/{name}");
            }
        }
    }

    #[test]
    fn every_write_of_a_batch_counts_its_rows() {
        for sql in Sql::of(Dialect::Postgres) {
            let name = sql.name();
            if ["_insert", "_update", "_upsert"].iter().any(|verb| name.ends_with(verb)) {
                let text = sql.text(Dialect::Postgres);
                assert!(text.contains("1 / (count(*) = cardinality($1))::int"), "{name}");
            }
        }
    }

    #[test]
    fn placeholders_are_expanded() {
        let sqlite = |text: &str| expand(text, Dialect::Sqlite);
        let postgres = |text: &str| expand(text, Dialect::Postgres);
        assert_eq!(sqlite("SELECT {refund_state};"), "SELECT status, provider_reference, settled_at;");
        assert_eq!(sqlite("{r.refund_state}"), "r.status, r.provider_reference, r.settled_at");
        assert_eq!(sqlite("{refund_state ?3}"), "?3, ?4, ?5");
        assert_eq!(sqlite("{refund_state = ?3}"), "status = ?3, provider_reference = ?4, settled_at = ?5");
        assert_eq!(postgres("{refund_state $3}"), "$3::text[], $4::text[], $5::bigint[]");
        assert_eq!(
            postgres("{refund_state = n}"),
            "status = n.status, provider_reference = n.provider_reference, settled_at = n.settled_at"
        );
        assert!(postgres("{e.event_tallies}").ends_with("e.revenue::text"));
        assert!(postgres("{event_tallies $1}").ends_with("$5::text[]::numeric[]"));
        assert_eq!(postgres("a = ?1 {guard row-lock: b = ?2}"), "a = $1 b = $2");
        assert_eq!(sqlite("{no_such_group}"), "{no_such_group}");
    }
}
