//! The problem codes, parsed from `docs/errors.md`, which documents each of them.

use domain::{BookingStatus, TicketTypeId, Timestamp};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::wire::{As, Extensible, FieldErrorView, MoneyView, RefundView, TextSchema};

const ERRORS: &str = include_str!("../../../../docs/errors.md");

/// The documentation of one problem code.
#[derive(Clone, Copy)]
pub(super) struct ProblemDoc {
    pub(super) code: &'static str,
    pub(super) status: &'static str,
    /// The description in Markdown.
    pub(super) text: &'static str,
}

/// All documented codes, in the order of `docs/errors.md`.
pub(super) fn problem_docs() -> impl Iterator<Item = ProblemDoc> {
    ERRORS.split("\n## ").skip(1).filter_map(|section| {
        let (code, text) = section.split_once('\n')?;
        let status = text.trim_start().strip_prefix("Status ")?.get(..3)?;
        Some(ProblemDoc { code, status, text })
    })
}

/// The documentation of a code; `None` if it is unknown.
pub(super) fn problem_doc(code: &str) -> Option<ProblemDoc> {
    problem_docs().find(|doc| doc.code == code)
}

/// The component that lists the codes.
struct ProblemCode;

impl TextSchema for ProblemCode {
    const NAME: Option<&'static str> = Some("ProblemCode");

    fn schema() -> Schema {
        let codes: Vec<&str> = problem_docs().map(|doc| doc.code).collect();
        json_schema!({"type": "string", "description": "The problem codes.", "enum": codes})
    }
}

/// The schema of all problems. A problem has only the members of its code. Later versions add members, so
/// unknown ones are allowed.
pub(super) fn schema(generator: &mut SchemaGenerator) -> Value {
    let count = json!({"type": "integer", "format": "int64", "minimum": 0});
    let mut code = generator.subschema_for::<Extensible<ProblemCode>>();
    code.insert("description".to_owned(), "Stable code, on which clients can switch.".into());
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "description":
            "Problem details (RFC 9457) of a failed request. `/problems/{code}` documents each code.",
        "required": ["type", "title", "status", "detail", "code", "requestId"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference", "pattern": "^/problems/[a-z_]+$"},
            "title": text,
            "status": {"type": "integer", "format": "int32"},
            "detail": text,
            "code": code,
            "requestId": {"type": "string", "description": "Also in the header `X-Request-Id`."},
            "errors": {
                "type": "array", "description": "All errors in the request.",
                "items": generator.subschema_for::<FieldErrorView<'static>>(),
            },
            "requested": count,
            "available": count,
            "ticketTypeId": {
                "anyOf": [generator.subschema_for::<As<TicketTypeId>>(), {"type": "null"}],
                "description": "`null` if the event as a whole, not one ticket type, has too few tickets.",
            },
            "salesStartAt": generator.subschema_for::<As<Timestamp>>(),
            "bookingStatus": generator.subschema_for::<As<BookingStatus>>(),
            "refund": generator.subschema_for::<RefundView<'static>>(),
            "expected": generator.subschema_for::<MoneyView>(),
            "rule": {"type": "string", "description": "The name of the policy, as in `RateLimit-Policy`."},
            "limit": count,
            "windowMs": count,
            "retryAfterMs": count,
            "database": {"type": "string", "description": "Of `/readyz?verbose`: the state of the database."},
            "chores": {"type": "object", "description":
                "Of `/readyz?verbose`: the time of each chore's last success."},
            "tasks": {"type": "object", "description":
                "Of `/readyz?verbose`: the status of each background task, and the number of its restarts."},
        },
    })
}
