//! The values of columns, the same for every database.
//!
//! A [`Cell`] is a value that is bound to a statement; a [`Row`] is a row of a result, read column by column
//! through [`Cells`]. A type that can be in a column implements [`Column`].

use std::borrow::Cow;

use crate::Cause;
use crate::fault::RowResult;

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 16 bytes: `BLOB` in SQLite, `uuid` in PostgreSQL.
    Id,
    /// `INTEGER`, `bigint`.
    Int,
    /// `INTEGER` (0 or 1), `boolean`.
    Bool,
    /// `TEXT`, `text`.
    Text,
    /// A decimal integer of any length: `TEXT`, `numeric`.
    Decimal,
    /// `BLOB`, `bytea`.
    Bytes,
}

/// A value of a column, to be bound to a statement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell<'v> {
    Null,
    Id([u8; 16]),
    Int(i64),
    Bool(bool),
    /// Also a value of a [`Kind::Decimal`].
    Text(Cow<'v, str>),
    Bytes(Cow<'v, [u8]>),
}

/// A row that a database has returned. A column with another type than the requested one is an error.
pub(crate) trait Row {
    fn is_null(&self, column: usize) -> RowResult<bool>;
    fn id(&self, column: usize) -> RowResult<[u8; 16]>;
    fn int(&self, column: usize) -> RowResult<i64>;
    fn bool(&self, column: usize) -> RowResult<bool>;
    fn text(&self, column: usize) -> RowResult<&str>;
    fn bytes(&self, column: usize) -> RowResult<&[u8]>;
}

/// Reads the columns of a row from left to right, so that no position is a number in the code.
pub(crate) struct Cells<'r> {
    row: &'r dyn Row,
    next: usize,
}

impl<'r> Cells<'r> {
    pub(crate) fn new(row: &'r dyn Row) -> Self {
        Self { row, next: 0 }
    }

    /// The next column, or the next group of columns.
    pub(crate) fn next<T: Read<'r>>(&mut self) -> RowResult<T> {
        T::read(self)
    }

    /// True if the next column is NULL, as in an outer join without a match.
    pub(crate) fn is_null(&self) -> RowResult<bool> {
        self.row.is_null(self.next)
    }

    /// The next column, without advancing.
    pub(crate) fn peek<T: Column<'r>>(&self) -> RowResult<T> {
        T::from_row(self.row, self.next)
    }

    /// The columns after the next group, without advancing.
    pub(crate) fn after(&self, group: &[ColumnName]) -> Cells<'r> {
        Cells { row: self.row, next: self.next + group.len() }
    }

    /// A column of the next group, by its name, without advancing.
    pub(crate) fn peek_at<T: Column<'r>>(&self, group: &[ColumnName], name: &str) -> RowResult<T> {
        let position = group.iter().position(|(column, _)| *column == name);
        let position = position.ok_or_else(|| Cause::new(format!("there is no column {name}")))?;
        T::from_row(self.row, self.next + position)
    }
}

/// A value that is read from the next columns of a row.
pub(crate) trait Read<'r>: Sized {
    /// Reads the value. After an error, the position in the row is undefined.
    fn read(cells: &mut Cells<'r>) -> RowResult<Self>;
}

impl<'r, T: Column<'r>> Read<'r> for T {
    fn read(cells: &mut Cells<'r>) -> RowResult<Self> {
        let column = cells.next;
        cells.next += 1;
        T::from_row(cells.row, column)
    }
}

/// The name and the type of a column.
pub(crate) type ColumnName = (&'static str, Kind);

/// Values of the columns of a group.
pub(crate) trait IntoCells<'v> {
    /// Appends the values to those of a row.
    fn push_to(self, row: &mut Vec<Cell<'v>>);
}

/// A type that can be the value of a column.
pub(crate) trait Column<'r>: Sized {
    const KIND: Kind;

    fn from_row(row: &'r dyn Row, column: usize) -> RowResult<Self>;
    fn into_cell(self) -> Cell<'r>;
}

impl<'r, T: Column<'r>> Column<'r> for Option<T> {
    const KIND: Kind = T::KIND;

    fn from_row(row: &'r dyn Row, column: usize) -> RowResult<Self> {
        if row.is_null(column)? { Ok(None) } else { T::from_row(row, column).map(Some) }
    }

    fn into_cell(self) -> Cell<'r> {
        self.map_or(Cell::Null, T::into_cell)
    }
}

/// A decimal integer that may need more than 64 bits.
pub(crate) struct Decimal<'r>(pub(crate) Cow<'r, str>);

macro_rules! columns {
    ($($kind:ident: $type:ty, $read:expr, $cell:expr;)*) => {
        $(impl<'r> Column<'r> for $type {
            const KIND: Kind = Kind::$kind;

            fn from_row(row: &'r dyn Row, column: usize) -> RowResult<Self> {
                $read(row, column)
            }

            fn into_cell(self) -> Cell<'r> {
                $cell(self)
            }
        })*
    };
}

columns! {
    Id: [u8; 16], |row: &'r dyn Row, column| row.id(column), Cell::Id;
    Int: i64, |row: &'r dyn Row, column| row.int(column), Cell::Int;
    Int: u64, number, |number| Cell::Int(to_i64(number));
    Int: u32, number, |number: u32| Cell::Int(number.into());
    Bool: bool, |row: &'r dyn Row, column| row.bool(column), Cell::Bool;
    Text: Cow<'r, str>, |row: &'r dyn Row, column| row.text(column).map(Cow::Borrowed), Cell::Text;
    Decimal: Decimal<'r>, |row: &'r dyn Row, column| row.text(column).map(|text| Decimal(text.into())),
        |decimal: Decimal<'r>| Cell::Text(decimal.0);
    Bytes: Cow<'r, [u8]>, |row: &'r dyn Row, column| row.bytes(column).map(Cow::Borrowed), Cell::Bytes;
}

/// A number, checked against the range of its type.
fn number<N: TryFrom<i64>>(row: &dyn Row, column: usize) -> RowResult<N> {
    let number = row.int(column)?;
    N::try_from(number).map_err(|_| Cause::new(format!("the number {number} is out of range")))
}

/// Saturates; all counts are far below that bound.
pub(crate) fn to_i64(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Conversions of parameters.
macro_rules! cell_from {
    ($($type:ty, $value:ident => $cell:expr;)*) => {
        $(impl From<$type> for Cell<'static> {
            fn from($value: $type) -> Self {
                $cell
            }
        })*
    };
}

cell_from! {
    [u8; 16], id => Cell::Id(id);
    i64, number => Cell::Int(number);
    u64, number => Cell::Int(to_i64(number));
    u32, number => Cell::Int(number.into());
    bool, value => Cell::Bool(value);
    String, text => Cell::Text(text.into());
}

impl<'v> From<&'v str> for Cell<'v> {
    fn from(text: &'v str) -> Self {
        Self::Text(text.into())
    }
}

impl<'v, T: Into<Cell<'v>>> From<Option<T>> for Cell<'v> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, T::into)
    }
}
