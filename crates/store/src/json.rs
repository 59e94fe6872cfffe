//! The JSON columns: the items and the metadata of a booking, and the lines of a ledger entry.

use std::collections::BTreeMap;

use domain::{Currency, EntryLine, Item, Items, Metadata, Money, Name, TicketTypeId};
use serde_json::{Value, json};

use crate::Cause;

/// Encodes the items of a booking as JSON.
pub(crate) fn items_to(items: &Items) -> String {
    let item = |item: &Item| {
        json!([hex(item.ticket_type), item.quantity, item.unit_price.amount(), item.name.as_str()])
    };
    items.iter().map(item).collect::<Value>().to_string()
}

/// Decodes the items of a booking.
pub(crate) fn items_from(text: &str, currency: Currency) -> Result<Items, Cause> {
    let rows: Vec<(String, u32, i64, String)> = serde_json::from_str(text).map_err(Cause::new)?;
    let item = |(id, quantity, price, name): (String, u32, i64, String)| {
        let name: Name = name.parse().map_err(Cause::new)?;
        let unit_price = Money::new(price, currency).map_err(Cause::new)?;
        Ok(Item { ticket_type: unhex(&id)?, name, quantity, unit_price })
    };
    let items = rows.into_iter().map(item).collect::<Result<Vec<_>, Cause>>()?;
    Items::new(items).ok_or_else(|| Cause::new("its items are empty, repeated or zero"))
}

/// Encodes the metadata of a booking as a JSON object; `None` if it is empty.
pub(crate) fn metadata_to(metadata: &Metadata) -> Option<String> {
    let object = || metadata.iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
    (!metadata.is_empty()).then(|| Value::Object(object()).to_string())
}

/// Decodes the metadata of a booking.
pub(crate) fn metadata_from(text: Option<&str>) -> Result<Metadata, Cause> {
    let Some(text) = text else { return Ok(Metadata::default()) };
    let object: BTreeMap<String, String> = serde_json::from_str(text).map_err(Cause::new)?;
    Metadata::new(object).map_err(|error| Cause::new(format!("metadata: {error}")))
}

/// Encodes the lines of a ledger entry as JSON.
pub(crate) fn lines_to(lines: &[EntryLine]) -> String {
    let line = |line: &EntryLine| json!([hex(line.ticket_type), line.quantity]);
    lines.iter().map(line).collect::<Value>().to_string()
}

/// Decodes the lines of a ledger entry.
pub(crate) fn lines_from(text: &str) -> Result<Vec<EntryLine>, Cause> {
    let rows: Vec<(String, u32)> = serde_json::from_str(text).map_err(Cause::new)?;
    rows.into_iter().map(|(id, quantity)| Ok(EntryLine { ticket_type: unhex(&id)?, quantity })).collect()
}

/// Encodes a ticket type's id for stored JSON: 32 hexadecimal digits.
pub(crate) fn hex(id: TicketTypeId) -> String {
    format!("{:032x}", u128::from_be_bytes(*id.bytes()))
}

fn unhex(text: &str) -> Result<TicketTypeId, Cause> {
    let value = u128::from_str_radix(text, 16).map_err(Cause::new)?;
    Ok(TicketTypeId::from_bytes(value.to_be_bytes()))
}
