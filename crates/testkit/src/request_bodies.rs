//! Valid request bodies, which tests modify in one place.

use serde_json::{Value, json};

/// The body of an event that can be booked at once, at 45.00 euros per ticket.
pub fn event_body(capacity: u32) -> Value {
    json!({
        "name": "Night of the Open Doors", "venue": "Old Power Station",
        "startsAt": "2099-06-01T18:00:00Z", "capacity": capacity,
        "price": {"amount": 4_500, "currency": "EUR"},
    })
}

/// `body` with the fields of `changes` set; `null` removes a field.
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
