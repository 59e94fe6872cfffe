//! Rows and parameters of SQLite.

use domain::guard;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, ErrorCode, ToSql, params_from_iter};

use crate::cell::{Cell, Cells, Row};
use crate::database::Decode;
use crate::encode::Write;
use crate::fault::RowResult;
use crate::sql::{Dialect, Sql};
use crate::{Cause, Fault};

/// The statements of this store, as texts.
pub(super) fn text(sql: Sql) -> std::borrow::Cow<'static, str> {
    sql.text(Dialect::Sqlite)
}

/// Runs a statement, and decodes its rows. The outer error is that of the database, the inner one that of the
/// first row that cannot be decoded.
pub(super) fn query<T>(
    connection: &Connection,
    sql: Sql,
    values: &[Cell<'_>],
    decode: impl Fn(&mut Cells<'_>) -> RowResult<T>,
) -> rusqlite::Result<RowResult<Vec<T>>> {
    let mut statement = connection.prepare_cached(&text(sql))?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        match decode(&mut Cells::new(row)) {
            Ok(value) => all.push(value),
            Err(cause) => return Ok(Err(cause)),
        }
    }
    Ok(Ok(all))
}

/// As [`query`], with both errors as a fault.
pub(super) fn list<T>(
    connection: &Connection,
    sql: Sql,
    values: &[Cell<'_>],
    decode: Decode<T>,
) -> Result<Vec<T>, Fault> {
    query(connection, sql, values, decode).map_err(fault)?.map_err(Fault::Broken)
}

/// Writes rows one by one. Each must be written; otherwise a guard missed, and the transaction fails.
pub(super) fn write(connection: &Connection, write: &Write<'_>) -> Result<(), Fault> {
    let sql = text(write.sql);
    let mut statement = connection.prepare_cached(&sql).map_err(fault)?;
    for row in &write.rows {
        let written = statement.execute(params_from_iter(row)).map_err(fault)?;
        if guard!(RowCountCheck: written != 1) {
            let first = sql.lines().next().unwrap_or_default();
            return Err(Fault::Broken(Cause::new(format!("a guard missed ({written} rows): {first}"))));
        }
    }
    Ok(())
}

/// The values of a column, which must not be NULL.
fn value<'r>(row: &'r rusqlite::Row<'_>, column: usize) -> RowResult<ValueRef<'r>> {
    match row.get_ref(column).map_err(Cause::new)? {
        ValueRef::Null => Err(Cause::new("is NULL")),
        value => Ok(value),
    }
}

impl Row for rusqlite::Row<'_> {
    fn is_null(&self, column: usize) -> RowResult<bool> {
        Ok(self.get_ref(column).map_err(Cause::new)? == ValueRef::Null)
    }

    fn id(&self, column: usize) -> RowResult<[u8; 16]> {
        let bytes = value(self, column)?.as_blob().map_err(Cause::new)?;
        bytes.try_into().map_err(|_| Cause::new(format!("has {} bytes instead of 16", bytes.len())))
    }

    fn int(&self, column: usize) -> RowResult<i64> {
        value(self, column)?.as_i64().map_err(Cause::new)
    }

    fn bool(&self, column: usize) -> RowResult<bool> {
        self.int(column).map(|number| number != 0)
    }

    fn text(&self, column: usize) -> RowResult<&str> {
        value(self, column)?.as_str().map_err(Cause::new)
    }

    fn bytes(&self, column: usize) -> RowResult<&[u8]> {
        value(self, column)?.as_blob().map_err(Cause::new)
    }
}

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Null => ToSqlOutput::Owned(Value::Null),
            Self::Id(id) => ToSqlOutput::Borrowed(ValueRef::Blob(id)),
            Self::Int(number) => ToSqlOutput::Owned(Value::Integer(*number)),
            Self::Bool(value) => ToSqlOutput::Owned(Value::Integer((*value).into())),
            Self::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Self::Bytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        })
    }
}

/// The fault for an error of SQLite, except an I/O error at COMMIT: nothing was done.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn fault(error: rusqlite::Error) -> Fault {
    let cause = Cause::new(&error);
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::OutOfMemory
            | ErrorCode::DatabaseCorrupt
            | ErrorCode::NotADatabase,
        ) => Fault::Unavailable(cause),
        Some(_) | None => Fault::Broken(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::schema;

    #[test]
    fn every_statement_prepares() {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::migrate(&mut connection).unwrap();
        for sql in Sql::of(Dialect::Sqlite) {
            connection.prepare(&text(sql)).unwrap_or_else(|error| panic!("{}: {error}", sql.name()));
        }
    }

    /// The cost of a list or a load must not grow with the number of bookings.
    #[test]
    fn no_statement_but_those_of_the_audit_scans_a_table() {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::migrate(&mut connection).unwrap();
        let lists_all = [
            Sql::AuditEntriesByBooking,
            Sql::AuditTotals,
            Sql::AuditUsers,
            Sql::EventListAll,
            Sql::EventStats,
            Sql::CursorPendingCount,
        ];
        for sql in Sql::of(Dialect::Sqlite).filter(|sql| !lists_all.contains(sql)) {
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {}", text(sql))).unwrap();
            let nulls = vec![rusqlite::types::Null; plan.parameter_count()];
            let steps = plan.query_map(params_from_iter(nulls), |row| row.get::<_, String>(3)).unwrap();
            for step in steps {
                let step = step.unwrap();
                assert!(!step.starts_with("SCAN"), "{}: {step}", sql.name());
                assert!(!step.contains("TEMP B-TREE"), "{}: {step}", sql.name());
            }
        }
    }
}
