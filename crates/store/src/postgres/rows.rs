//! Rows and parameters of PostgreSQL.

use std::error::Error;

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

use super::session::{Call, Value, describe};
use crate::Cause;
use crate::cell::{Cell, Cells, Row};
use crate::database::Query;
use crate::encode::Write;
use crate::fault::RowResult;
use crate::limit::IDEMPOTENCY_TTL_SECONDS;
use crate::sql::Sql;

/// Decodes rows. The error is that of the first row that cannot be decoded.
pub(super) fn decode<T>(
    rows: &[tokio_postgres::Row],
    decode: impl Fn(&mut Cells<'_>) -> RowResult<T>,
) -> RowResult<Vec<T>> {
    rows.iter().map(|row| decode(&mut Cells::new(row))).collect()
}

fn value<'r, T: FromSql<'r>>(row: &'r tokio_postgres::Row, column: usize) -> RowResult<T> {
    row.try_get(column).map_err(|error| Cause::new(describe(&error)))
}

/// A value of any type, to find out if it is NULL.
struct Any;

impl<'r> FromSql<'r> for Any {
    fn from_sql(_: &Type, _: &'r [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl Row for tokio_postgres::Row {
    fn is_null(&self, column: usize) -> RowResult<bool> {
        value::<Option<Any>>(self, column).map(|value| value.is_none())
    }

    fn id(&self, column: usize) -> RowResult<[u8; 16]> {
        value::<Uuid>(self, column).map(Uuid::into_bytes)
    }

    fn int(&self, column: usize) -> RowResult<i64> {
        value(self, column)
    }

    fn bool(&self, column: usize) -> RowResult<bool> {
        value(self, column)
    }

    fn text(&self, column: usize) -> RowResult<&str> {
        value(self, column)
    }

    fn bytes(&self, column: usize) -> RowResult<&[u8]> {
        value(self, column)
    }
}

impl ToSql for Cell<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Id(id) => Uuid::from_bytes(*id).to_sql_checked(ty, out),
            Self::Int(number) => number.to_sql_checked(ty, out),
            Self::Bool(value) => value.to_sql_checked(ty, out),
            Self::Text(text) => text.to_sql_checked(ty, out),
            Self::Bytes(bytes) => bytes.to_sql_checked(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl From<Query> for Call<'static> {
    fn from(query: Query) -> Self {
        let values = query.values.into_iter().map(|cell| Box::new(cell) as Value<'static>);
        Self { sql: query.sql, values: values.collect() }
    }
}

/// A write of all rows in one statement, with one array parameter per column.
pub(super) fn write<'v>(write: Write<'v>) -> Call<'v> {
    let columns = write.rows.first().map_or(0, Vec::len);
    let mut rows: Vec<_> = write.rows.into_iter().map(Vec::into_iter).collect();
    let column = |_| {
        let cells: Vec<Cell<'v>> = rows.iter_mut().filter_map(Iterator::next).collect();
        Box::new(cells) as Value<'v>
    };
    let mut values: Vec<Value<'v>> = (0..columns).map(column).collect();
    if write.sql == Sql::IdempotencyUpsert {
        values.push(Box::new(i64::from(IDEMPOTENCY_TTL_SECONDS) * 1_000_000));
    }
    Call { sql: write.sql, values }
}
