//! Puts the table of operations, the schemas of the wire types and the codes of problems together.

use std::collections::{BTreeMap, BTreeSet};

use domain::{BookingId, EventId, RefundId};
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::operations::{OPERATIONS, Operation};
use super::problems;
use crate::limit::IDEMPOTENCY_KEY_CHARS_MAX;
use crate::wire::As;

const DESCRIPTION: &str = "\
Sells tickets: events, bookings with a hold, payments reported by a service, refunds, and a ledger of every \
change. `x-roles` of an operation names the roles of a token that may call it; where it is empty no token is \
needed, but one that is given must be valid. `x-codes` of an answer lists the codes of problems that the \
operation gives with that status. A route that does not exist is `not_found`, a method that a route does not \
know `method_not_allowed`. In a request, `null` for an optional field is as good as its absence, except in an edit. Later versions add members to answers, operations, and words to an \
`x-extensible-enum`: ignore members and handle words that you do not know. Such lists are components, too \
(`ProblemCode`), for their names. The words of any other field of an answer are complete.";

/// What operations are about, in the order of the document.
const TAGS: [(&str, &str); 6] = [
    ("events", "What people attend: put on sale, edited, watched."),
    ("bookings", "Tickets held, paid for and given back."),
    ("refunds", "Money that is owed to buyers."),
    ("stats", "Counts and revenue."),
    ("health", "For load balancers and monitoring."),
    ("description", "This description, and the meaning of each code."),
];

/// The makers of schemas: what is asked for and what is answered follow different rules about what may be
/// absent.
struct SchemaGenerators {
    requests: SchemaGenerator,
    answers: SchemaGenerator,
}

/// The whole description.
pub(super) fn document() -> Value {
    let settings = || {
        let mut settings = SchemaSettings::draft2020_12();
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
        settings.transforms.push(Box::new(RecursiveTransform(without_null_default)));
        settings.transforms.push(Box::new(RecursiveTransform(use_signed_formats)));
        settings
    };
    let mut makers = SchemaGenerators {
        requests: settings().for_deserialize().into_generator(),
        answers: settings().for_serialize().into_generator(),
    };
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for operation in OPERATIONS {
        let described = describe(operation, &mut makers);
        paths.entry(operation.path).or_default().insert(operation.method.to_owned(), described);
    }
    let problem = problems::schema(&mut makers.answers);
    let mut schemas = makers.requests.take_definitions(true);
    schemas.append(&mut makers.answers.take_definitions(true));
    schemas.insert("Problem".to_owned(), problem);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "boxoffice", "version": env!("CARGO_PKG_VERSION"), "description": DESCRIPTION,
            "license": {"name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE")},
        },
        "servers": [{"url": "/"}],
        "tags": TAGS.map(|(name, description)| json!({"name": name, "description": description})),
        "paths": paths,
        "components": {
            "schemas": schemas, "headers": headers(), "parameters": parameters(),
            "securitySchemes": {"token": {
                "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                "description": "`sub` is the user, `exp` is required, `role` is user (default), service or admin.",
            }},
        },
    })
}

/// That an absent field counts as `null` is no default: in an edit, the two differ.
fn without_null_default(schema: &mut Schema) {
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
}

/// Generators of clients know `int32` and `int64`, and take what they do not know for the smaller one. Counts of
/// tickets fit the first. `int64` is the widest that there is: revenue could exceed it by sales at the highest price.
fn use_signed_formats(schema: &mut Schema) {
    let signed = match schema.get("format").and_then(Value::as_str) {
        Some("uint32") => "int32",
        Some("uint64" | "int128") => "int64",
        _ => return,
    };
    schema.insert("format".to_owned(), signed.into());
}

fn describe(operation: &Operation, makers: &mut SchemaGenerators) -> Value {
    let public = operation.roles.is_empty();
    let mut described = json!({
        "operationId": operation.id, "summary": operation.summary, "tags": [tag(operation.path)],
        "x-roles": operation.roles,
        "security": if public { json!([]) } else { json!([{"token": []}]) },
        "parameters": operation_parameters(operation, makers),
        "responses": operation_responses(operation, makers),
    });
    if let Some(body) = &operation.body {
        let schema = (body.schema)(&mut makers.requests);
        described["requestBody"] =
            json!({"required": body.required, "content": {"application/json": {"schema": schema}}});
    }
    described
}

/// What an operation is about: the first word of its path that is a name.
fn tag(path: &'static str) -> &'static str {
    let mut words = path.split('/').filter(|word| !word.is_empty() && *word != "v1");
    match words.next() {
        Some(name @ ("events" | "bookings" | "refunds" | "stats")) => name,
        Some("livez" | "readyz" | "metrics") => "health",
        Some(_) | None => "description",
    }
}

fn operation_parameters(operation: &Operation, makers: &mut SchemaGenerators) -> Vec<Value> {
    let shared = |name: &str| json!({"$ref": format!("#/components/parameters/{name}")});
    let mut asked = Vec::new();
    if let Some((name, about, schema)) = path_parameter(operation.path, makers) {
        asked.push(json!({
            "name": name, "in": "path", "required": true, "description": about, "schema": schema,
        }));
    }
    for query in operation.query {
        asked.push(json!({
            "name": query.name, "in": "query", "required": query.required, "description": query.about,
            "schema": (query.kind)(&mut makers.requests),
        }));
    }
    let headers =
        [(operation.idempotency_key, "IdempotencyKey"), (operation.if_match, "IfMatch"), (true, "RequestId")];
    asked.extend(headers.into_iter().filter(|(taken, _)| *taken).map(|(_, name)| shared(name)));
    asked
}

/// The parameter in a path: its name, its description and its schema.
fn path_parameter(path: &str, makers: &mut SchemaGenerators) -> Option<(&'static str, &'static str, Schema)> {
    let generator = &mut makers.requests;
    let (about, schema) = match path {
        _ if path.starts_with("/v1/events/{id}") => ("The event.", generator.subschema_for::<As<EventId>>()),
        _ if path.starts_with("/v1/bookings/{id}") => {
            ("The booking.", generator.subschema_for::<As<BookingId>>())
        }
        _ if path.starts_with("/v1/refunds/{id}") => {
            ("The refund.", generator.subschema_for::<As<RefundId>>())
        }
        "/problems/{code}" => return Some(("code", "The code.", json_schema!({"type": "string"}))),
        _ => return None,
    };
    Some(("id", about, schema))
}

/// The codes that an operation may answer with.
fn problem_codes(operation: &Operation) -> BTreeSet<&'static str> {
    let body: &[&str] =
        &["malformed_request", "payload_too_large", "unsupported_media_type", "validation_failed"];
    let rules: [(bool, &[&str]); 9] = [
        (true, &["unauthenticated"]),
        (!operation.roles.is_empty() && operation.roles.len() < 3, &["forbidden"]),
        (operation.path.contains('{'), &["not_found"]),
        (!operation.query.is_empty(), &["malformed_request", "validation_failed"]),
        (operation.body.is_some(), body),
        (operation.idempotency_key, &["idempotency_key_reused", "idempotency_key_in_use"]),
        (operation.limit.is_some(), &["rate_limited"]),
        (operation.path.starts_with("/v1/"), &["internal_error", "overloaded", "unavailable"]),
        (operation.writes, &["outcome_unknown"]),
    ];
    let implied = rules.into_iter().filter(|(applies, _)| *applies).flat_map(|(_, codes)| codes);
    implied.chain(operation.extra_codes).copied().collect()
}

fn operation_responses(operation: &Operation, makers: &mut SchemaGenerators) -> Map<String, Value> {
    let answer = &operation.success;
    let limit: &[&str] = if operation.limit.is_some() { &["RateLimit", "RateLimit-Policy"] } else { &[] };
    let kept: &[&str] = if operation.idempotency_key { &["Idempotent-Replayed"] } else { &[] };
    let sent = |groups: &[&[&str]]| -> Map<String, Value> {
        let header = |name: &&str| {
            let place = format!("#/components/headers/{name}");
            ((*name).to_owned(), json!({"$ref": place}))
        };
        groups.iter().copied().flatten().chain(&["X-Request-Id"]).map(header).collect()
    };
    let mut answers = Map::new();
    let schema = (answer.kind)(&mut makers.answers);
    answers.insert(
        answer.status.to_owned(),
        json!({
            "description": answer.about, "headers": sent(&[answer.headers, limit, kept]),
            "content": {answer.media_type: {"schema": schema}},
        }),
    );
    let mut refusals: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for meaning in problem_codes(operation).into_iter().filter_map(problems::problem_doc) {
        refusals.entry(meaning.status).or_default().push(meaning.code);
    }
    for (status, codes) in refusals {
        let own: &[&str] = match status {
            "401" => &["WWW-Authenticate"],
            "429" | "503" => &["Retry-After"],
            _ => &[],
        };
        // The limiter stands behind the look at the request alone, and before everything else.
        let limited = if ["400", "401", "403", "413", "415"].contains(&status) { &[] } else { limit };
        let kept = if ["404", "412", "422"].contains(&status) { kept } else { &[] };
        answers.insert(
            status.to_owned(),
            json!({
                "description": codes.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", "),
                "headers": sent(&[own, limited, kept]),
                "x-codes": codes,
                // A plain reference: whatever stands beside it makes generators invent a type for each answer.
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            }),
        );
    }
    answers
}

fn headers() -> Value {
    let header = |about: &str, kind: &str| json!({"description": about, "schema": {"type": kind}});
    json!({
        "X-Request-Id": header("Names the request, as the log and the ledger do.", "string"),
        "ETag": header("The event's `version`, quoted; counts edits of the description, not sales.", "string"),
        "Location": header("The path of what was made.", "string"),
        "RateLimit": header("What is left of the limit (draft-ietf-httpapi-ratelimit-headers-11).", "string"),
        "RateLimit-Policy": header("The limit: its name, attempts and seconds.", "string"),
        "Retry-After": header("Seconds after which the request may be repeated.", "integer"),
        "Idempotent-Replayed": header("`true` where the answer was kept under the key.", "string"),
        "WWW-Authenticate": header("`Bearer`.", "string"),
    })
}

fn parameters() -> Value {
    let (max, inner) = (IDEMPOTENCY_KEY_CHARS_MAX, IDEMPOTENCY_KEY_CHARS_MAX - 2);
    // Printable ASCII but quotes; bare, it neither begins nor ends with a blank.
    let key = format!("^(\"[ !#-~]{{1,{max}}}\"|[!#-~]([ !#-~]{{0,{inner}}}[!#-~])?)$");
    json!({
        "IdempotencyKey": {
            "name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "pattern": key},
            "description": "The same key and body again get the same answer, for 24 hours: 1 to 255 printable ASCII \
                            characters, quoted or bare.",
        },
        "IfMatch": {
            "name": "If-Match", "in": "header", "schema": {"type": "string"},
            "description": "The `ETag` that the edit was made from, or `*`.",
        },
        "RequestId": {
            "name": "X-Request-Id", "in": "header", "schema": {"type": "string"},
            "description": format!(
                "A name for the request: 1 to {} visible ASCII characters. One is made up where there is none, \
                 and where it is something else.",
                domain::REQUEST_ID_CHARS_MAX,
            ),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_use_exactly_the_documented_codes() {
        let used: BTreeSet<&str> =
            OPERATIONS.iter().flat_map(problem_codes).chain(["method_not_allowed"]).collect();
        let known: BTreeSet<&str> = problems::problem_docs().map(|meaning| meaning.code).collect();
        assert_eq!(used, known);
    }
}
