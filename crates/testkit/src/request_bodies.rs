//! Request bodies that are valid, to be made wrong in one place.

use serde_json::{Value, json};

/// The body of an event that can be booked at once, for 45.00 euros a ticket.
pub fn event_body(capacity: u32) -> Value {
    json!({
        "name": "Night of the Open Doors", "venue": "Old Power Station",
        "startsAt": "2099-06-01T18:00:00Z", "capacity": capacity,
        "price": {"amount": 4_500, "currency": "EUR"},
    })
}

/// `body` with the fields of `changes` put in; `null` takes a field out.
#[must_use]
pub fn with_fields(mut body: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().into_iter().flatten() {
        if value.is_null() {
            body.as_object_mut().and_then(|fields| fields.remove(name));
        } else {
            body[name] = value.clone();
        }
    }
    body
}
