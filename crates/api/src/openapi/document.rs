//! Builds the OpenAPI document from the table of operations, the schemas of the wire types and the problem
//! codes.

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
A ticket-booking API: events, bookings that hold tickets, payments reported by a service, refunds, and a \
ledger of every change. `x-roles` of an operation lists the roles that may call it. If it is empty, no \
token is needed, but a token that is sent must be valid. `x-codes` of a response lists the problem codes \
that the operation returns with that status. An unknown route returns `not_found`, and a method that a \
route does not support returns `method_not_allowed`. In a request, `null` for an optional field is \
equivalent to its absence, except in an edit. Later versions add operations, members of responses, and \
values to an `x-extensible-enum`: ignore unknown members, and handle unknown values. The values of each \
`x-extensible-enum` are also a component with an `enum`, such as `ProblemCode`. Every other `enum` in a \
response is complete.";

/// The tags of operations, in the order of the document.
const TAGS: [(&str, &str); 6] = [
    ("events", "Create, edit, read and watch events."),
    ("bookings", "Book tickets, confirm payments and cancel bookings."),
    ("refunds", "Refunds owed to buyers."),
    ("stats", "Booking counts and revenue."),
    ("health", "Health and metrics, for load balancers and monitoring."),
    ("description", "This document, and the documentation of the problem codes."),
];

/// The schema generators. Requests and responses have different rules about optional fields.
struct SchemaGenerators {
    requests: SchemaGenerator,
    responses: SchemaGenerator,
}

/// Builds the complete document.
pub(super) fn document() -> Value {
    let settings = || {
        let mut settings = SchemaSettings::draft2020_12();
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
        settings.transforms.push(Box::new(RecursiveTransform(without_null_default)));
        settings.transforms.push(Box::new(RecursiveTransform(use_signed_formats)));
        settings
    };
    let mut generators = SchemaGenerators {
        requests: settings().for_deserialize().into_generator(),
        responses: settings().for_serialize().into_generator(),
    };
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for operation in OPERATIONS {
        let description = describe(operation, &mut generators);
        paths.entry(operation.path).or_default().insert(operation.method.to_owned(), description);
    }
    let problem = problems::schema(&mut generators.responses);
    let mut schemas = generators.requests.take_definitions(true);
    schemas.append(&mut generators.responses.take_definitions(true));
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
                "description": "`sub` is the user, `exp` is required, `role` is user (default), service \
                                or admin.",
            }},
        },
    })
}

/// Removes `"default": null`: in an edit, an absent field differs from `null`.
fn without_null_default(schema: &mut Schema) {
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
}

/// Replaces integer formats by `int32` and `int64`: client generators take formats that they do not know for
/// the smaller one. Ticket counts fit into `int32`. `int64` is the widest known format, although revenue
/// could exceed it with sales at the highest price.
fn use_signed_formats(schema: &mut Schema) {
    let signed = match schema.get("format").and_then(Value::as_str) {
        Some("uint32") => "int32",
        Some("uint64" | "int128") => "int64",
        _ => return,
    };
    schema.insert("format".to_owned(), signed.into());
}

fn describe(operation: &Operation, generators: &mut SchemaGenerators) -> Value {
    let public = operation.roles.is_empty();
    let mut description = json!({
        "operationId": operation.id, "summary": operation.summary, "tags": [tag(operation.path)],
        "x-roles": operation.roles,
        "security": if public { json!([]) } else { json!([{"token": []}]) },
        "parameters": operation_parameters(operation, generators),
        "responses": operation_responses(operation, generators),
    });
    if let Some(body) = &operation.body {
        let schema = (body.schema)(&mut generators.requests);
        description["requestBody"] =
            json!({"required": body.required, "content": {"application/json": {"schema": schema}}});
    }
    description
}

/// The tag of an operation, from the first segment of its path after `/v1`.
fn tag(path: &'static str) -> &'static str {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty() && *segment != "v1");
    match segments.next() {
        Some(name @ ("events" | "bookings" | "refunds" | "stats")) => name,
        Some("livez" | "readyz" | "metrics") => "health",
        Some(_) | None => "description",
    }
}

fn operation_parameters(operation: &Operation, generators: &mut SchemaGenerators) -> Vec<Value> {
    let shared = |name: &str| json!({"$ref": format!("#/components/parameters/{name}")});
    let mut parameters = Vec::new();
    if let Some((name, description, schema)) = path_parameter(operation.path, generators) {
        parameters.push(json!({
            "name": name, "in": "path", "required": true, "description": description, "schema": schema,
        }));
    }
    for query in operation.query {
        parameters.push(json!({
            "name": query.name, "in": "query", "required": query.required, "description": query.description,
            "schema": (query.schema)(&mut generators.requests),
        }));
    }
    let headers =
        [(operation.idempotency_key, "IdempotencyKey"), (operation.if_match, "IfMatch"), (true, "RequestId")];
    parameters.extend(headers.into_iter().filter(|(applies, _)| *applies).map(|(_, name)| shared(name)));
    parameters
}

/// Name, description and schema of the parameter in a path.
fn path_parameter(
    path: &str,
    generators: &mut SchemaGenerators,
) -> Option<(&'static str, &'static str, Schema)> {
    let generator = &mut generators.requests;
    let (description, schema) = match path {
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
    Some(("id", description, schema))
}

/// The problem codes that an operation can return.
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

fn operation_responses(operation: &Operation, generators: &mut SchemaGenerators) -> Map<String, Value> {
    let success = &operation.success;
    let limit: &[&str] = if operation.limit.is_some() { &["RateLimit", "RateLimit-Policy"] } else { &[] };
    let replayed: &[&str] = if operation.idempotency_key { &["Idempotent-Replayed"] } else { &[] };
    let header_refs = |groups: &[&[&str]]| -> Map<String, Value> {
        let header = |name: &&str| {
            let target = format!("#/components/headers/{name}");
            ((*name).to_owned(), json!({"$ref": target}))
        };
        groups.iter().copied().flatten().chain(&["X-Request-Id"]).map(header).collect()
    };
    let mut responses = Map::new();
    let schema = (success.schema)(&mut generators.responses);
    responses.insert(
        success.status.to_owned(),
        json!({
            "description": success.description, "headers": header_refs(&[success.headers, limit, replayed]),
            "content": {success.media_type: {"schema": schema}},
        }),
    );
    let mut codes_by_status: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for doc in problem_codes(operation).into_iter().filter_map(problems::problem_doc) {
        codes_by_status.entry(doc.status).or_default().push(doc.code);
    }
    for (status, codes) in codes_by_status {
        let own: &[&str] = match status {
            "401" => &["WWW-Authenticate"],
            "429" | "503" => &["Retry-After"],
            _ => &[],
        };
        // The limit is checked after the request alone has been validated, and before everything else.
        let limited = if ["400", "401", "403", "413", "415"].contains(&status) { &[] } else { limit };
        let replayed = if ["404", "412", "422"].contains(&status) { replayed } else { &[] };
        responses.insert(
            status.to_owned(),
            json!({
                "description": codes.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", "),
                "headers": header_refs(&[own, limited, replayed]),
                "x-codes": codes,
                // A plain `$ref`: with siblings, client generators would create a type for each response.
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            }),
        );
    }
    responses
}

fn headers() -> Value {
    let header =
        |description: &str, kind: &str| json!({"description": description, "schema": {"type": kind}});
    json!({
        "X-Request-Id": header("The id of the request, also in the log and the ledger.", "string"),
        "ETag": header("The event's `version`, quoted. It changes with edits, not with sales.", "string"),
        "Location": header("The path of the created resource.", "string"),
        "RateLimit": header("The remaining attempts (draft-ietf-httpapi-ratelimit-headers-11).", "string"),
        "RateLimit-Policy": header("The rate limit: its name, attempts and window in seconds.", "string"),
        "Retry-After": header("Seconds to wait before a retry.", "integer"),
        "Idempotent-Replayed": header("`true` if this is a replay of a stored response.", "string"),
        "WWW-Authenticate": header("`Bearer`.", "string"),
    })
}

fn parameters() -> Value {
    let (max, inner) = (IDEMPOTENCY_KEY_CHARS_MAX, IDEMPOTENCY_KEY_CHARS_MAX - 2);
    // Printable ASCII without quotes; a bare key neither begins nor ends with a space.
    let key = format!("^(\"[ !#-~]{{1,{max}}}\"|[!#-~]([ !#-~]{{0,{inner}}}[!#-~])?)$");
    json!({
        "IdempotencyKey": {
            "name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "pattern": key},
            "description": "1 to 255 printable ASCII characters, quoted or bare. For 24 hours, a repetition \
                            with the same key and body gets the same response.",
        },
        "IfMatch": {
            "name": "If-Match", "in": "header", "schema": {"type": "string"},
            "description": "The `ETag` of the version on which the edit is based, or `*`.",
        },
        "RequestId": {
            "name": "X-Request-Id", "in": "header", "schema": {"type": "string"},
            "description": format!(
                "An id for the request: 1 to {} visible ASCII characters. If it is absent or invalid, the \
                 server generates one.",
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
        let documented: BTreeSet<&str> = problems::problem_docs().map(|doc| doc.code).collect();
        assert_eq!(used, documented);
    }
}
