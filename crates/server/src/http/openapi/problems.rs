//! The codes of problems, from `docs/errors.md`: the one document that says what each means.

use domain::{BookingStatus, TicketTypeId, Timestamp};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::wire::{As, Extensible, FieldErrorView, MoneyView, RefundView, TextSchema};

const ERRORS: &str = include_str!("../../../../../docs/errors.md");

/// What the document says about one code.
#[derive(Clone, Copy)]
pub(super) struct ProblemDoc {
    pub(super) code: &'static str,
    pub(super) status: &'static str,
    /// In Markdown.
    pub(super) text: &'static str,
}

/// Every code, in the order of the document.
pub(super) fn problem_docs() -> impl Iterator<Item = ProblemDoc> {
    ERRORS.split("\n## ").skip(1).filter_map(|section| {
        let (code, text) = section.split_once('\n')?;
        let status = text.trim_start().strip_prefix("Status ")?.get(..3)?;
        Some(ProblemDoc { code, status, text })
    })
}

/// What one code means.
pub(super) fn problem_doc(code: &str) -> Option<ProblemDoc> {
    problem_docs().find(|meaning| meaning.code == code)
}

/// The codes as a component.
struct ProblemCode;

impl TextSchema for ProblemCode {
    const NAME: Option<&'static str> = Some("ProblemCode");

    fn schema() -> Schema {
        let codes: Vec<&str> = problem_docs().map(|meaning| meaning.code).collect();
        json_schema!({"type": "string", "description": "The codes of problems.", "enum": codes})
    }
}

/// The form of every problem. Members that do not belong to its code are absent; later versions add members, so
/// unknown ones are allowed.
pub(super) fn schema(generator: &mut SchemaGenerator) -> Value {
    let count = json!({"type": "integer", "format": "int64", "minimum": 0});
    let mut code = generator.subschema_for::<Extensible<ProblemCode>>();
    code.insert("description".to_owned(), "Stable: what programs switch on.".into());
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "description": "Why a request was refused, after RFC 9457. `/problems/{code}` says what each code means.",
        "required": ["type", "title", "status", "detail", "code", "requestId"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference", "pattern": "^/problems/[a-z_]+$"},
            "title": text,
            "status": {"type": "integer", "format": "int32"},
            "detail": text,
            "code": code,
            "requestId": {"type": "string", "description": "Also in the header `X-Request-Id`."},
            "errors": {
                "type": "array", "description": "Everything that is wrong with the request.",
                "items": generator.subschema_for::<FieldErrorView<'static>>(),
            },
            "requested": count,
            "available": count,
            "ticketTypeId": {
                "anyOf": [generator.subschema_for::<As<TicketTypeId>>(), {"type": "null"}],
                "description": "`null` where the event as a whole lacks tickets.",
            },
            "salesStartAt": generator.subschema_for::<As<Timestamp>>(),
            "bookingStatus": generator.subschema_for::<As<BookingStatus>>(),
            "refund": generator.subschema_for::<RefundView<'static>>(),
            "expected": generator.subschema_for::<MoneyView>(),
            "rule": {"type": "string", "description": "The name of the policy, as in `RateLimit-Policy`."},
            "limit": count,
            "windowMs": count,
            "retryAfterMs": count,
            "database": {"type": "string", "description": "Of `/readyz?verbose`: what the database says."},
            "chores": {"type": "object", "description": "Of `/readyz?verbose`: when each chore last succeeded."},
            "tasks": {"type": "object", "description":
                "Of `/readyz?verbose`: whether each background task runs, and how often it was restarted."},
        },
    })
}
