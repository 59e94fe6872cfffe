//! The OpenAPI document agrees with the server: the same routes, fields and codes.

use std::collections::BTreeSet;

use hyper::Method;
use serde_json::{Value, json};
use testkit::{Response, event_body, id_of, with_fields};

use crate::{program, server};

/// The documented routes, and one file that the documentation pages need.
const ROUTES: &str = "
    POST  /v1/events
    GET   /v1/events
    GET   /v1/events/{id}
    PATCH /v1/events/{id}
    GET   /v1/events/{id}/availability
    GET   /v1/events/{id}/availability/stream
    GET   /v1/events/{id}/ledger
    POST  /v1/bookings
    GET   /v1/bookings
    GET   /v1/bookings/{id}
    POST  /v1/bookings/{id}/confirm
    POST  /v1/bookings/{id}/cancel
    GET   /v1/bookings/{id}/validate
    GET   /v1/refunds
    POST  /v1/refunds/{id}/settle
    GET   /v1/stats
    GET   /livez
    GET   /readyz
    GET   /metrics
    GET   /openapi.json
    GET   /docs
    GET   /docs/style.css
    GET   /problems/{code}
";

type Routes = BTreeSet<(String, String)>;

fn route(method: &str, path: &str) -> (String, String) {
    (method.to_uppercase(), path.to_owned())
}

fn documented_routes() -> Routes {
    ROUTES.lines().filter_map(|line| line.trim().split_once(' ')).map(|(m, p)| route(m, p.trim())).collect()
}

pub(crate) async fn document() -> Value {
    let printed = program().run(["openapi"]).await;
    serde_json::from_str(&printed.stdout).unwrap_or_else(|error| panic!("{error}: {printed:?}"))
}

/// Every operation: method, path, and the operation's object in the document.
pub(crate) fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths
        .flat_map(|(path, item)| {
            let methods = item.as_object().into_iter().flatten();
            methods.map(move |(method, operation)| (method.as_str(), path.as_str(), operation))
        })
        .collect()
}

fn described_routes(document: &Value) -> Routes {
    operations(document).into_iter().map(|(method, path, _)| route(method, path)).collect()
}

/// The names of an object's members, or the strings of a list.
pub(crate) fn names(value: &Value) -> BTreeSet<&str> {
    match value {
        Value::Object(members) => members.keys().map(String::as_str).collect(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => BTreeSet::new(),
    }
}

/// Every code in the sources: those of refusals, and those of other problems.
fn codes_in_sources() -> BTreeSet<&'static str> {
    let refusals = include_str!("../../../domain/src/refusal.rs").lines().filter_map(|line| {
        let (variant, code) = line.trim().split_once(" => \"")?;
        variant.starts_with("Self::").then(|| code.trim_end_matches("\","))
    });
    // In `Self::new(status, "code", "Title", detail)`.
    let problems = include_str!("../../../api/src/problem.rs").split("Self::new(").skip(1);
    let problems = problems.filter_map(|call| call.split('"').nth(1));
    let is_code = |code: &&str| code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    refusals.chain(problems).filter(is_code).collect()
}

#[tokio::test]
async fn the_documented_routes_are_described() {
    assert_eq!(described_routes(&document().await), documented_routes());
}

#[tokio::test]
async fn the_routes_of_the_router_are_described() {
    let source = include_str!("../../../http_api/src/router.rs");
    let mut routes = Routes::new();
    for line in source.split(".route(\"").skip(1) {
        let (path, rest) = line.split_once("\", ").expect("a path and its methods");
        let methods = rest.split(".route(").next().unwrap_or_default().lines().next().unwrap_or_default();
        for method in ["get", "post", "patch", "put", "delete"] {
            if methods.contains(&format!("{method}(")) {
                routes.insert(route(method, path));
            }
        }
    }
    assert_eq!(described_routes(&document().await), routes);
}

#[tokio::test]
async fn the_methods_of_every_route_are_described() {
    let document = document().await;
    let server = server().await;
    let mut client = server.anonymous();
    let mut allowed = Routes::new();
    for (_, path, _) in operations(&document) {
        let place = path.replace("{id}", "x").replace("{code}", "x");
        let response = client.try_request(Method::DELETE, &place, None).await.unwrap();
        response.expect_problem(405, "method_not_allowed");
        let methods = response.header("allow").split(',').filter(|method| *method != "HEAD");
        allowed.extend(methods.map(|method| route(method, path)));
    }
    assert_eq!(described_routes(&document), allowed);
}

#[tokio::test]
async fn the_openapi_command_prints_the_served_document() {
    let printed = program().run(["openapi"]).await;
    let server = server().await;
    let response = server.anonymous().get("/openapi.json").await;
    response.expect(200);
    assert_eq!(printed.stdout.as_bytes(), response.body);
}

#[tokio::test]
async fn the_document_is_consistent() {
    let document = document().await;
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let what = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].as_str().expect("an id")), "{what}");
        let public = operation["security"] == json!([]);
        assert_eq!(public, operation["x-roles"] == json!([]), "{what}");
        let roles = names(&operation["x-roles"]);
        assert!(roles.is_subset(&["user", "service", "admin"].into()), "{what}");
        let parameters = operation["parameters"].as_array().expect("a list");
        let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path").count();
        assert_eq!(in_path, path.matches('{').count(), "{what}");
        let responses = operation["responses"].as_object().expect("an object");
        assert!(responses.keys().any(|status| status.starts_with('2')), "{what}");
        assert!(responses.values().all(|response| response["description"].is_string()), "{what}");
    }
    check_references(&document, &document);
}

fn check_references(document: &Value, value: &Value) {
    if let Some(target) = value["$ref"].as_str() {
        let place = target.strip_prefix('#').expect("a reference into the document");
        assert!(document.pointer(place).is_some(), "{target}");
    }
    let members = value.as_object().into_iter().flat_map(serde_json::Map::values);
    let items = value.as_array().into_iter().flatten();
    members.chain(items).for_each(|child| check_references(document, child));
}

#[tokio::test]
async fn u2_the_document_uses_only_features_that_client_generators_support() {
    let document = document().await;
    assert_eq!(document["info"]["license"]["identifier"], "Apache-2.0 OR MIT");
    let tags =
        document["tags"].as_array().expect("a list").iter().map(|tag| &tag["name"]).collect::<Vec<_>>();
    for (method, path, operation) in operations(&document) {
        assert!(tags.contains(&&operation["tags"][0]), "{method} {path}");
    }
    check_readable(&document, "");
}

/// Each of these made a client generator fail, or generate an anonymous type in place of a named one.
fn check_readable(value: &Value, place: &str) {
    let has = |word: &str| value.get(word).is_some();
    for word in ["oneOf", "allOf", "not", "const", "if", "patternProperties", "prefixItems"] {
        assert!(!has(word), "{word} in {place}");
    }
    if has("$ref") {
        assert!(names(value).is_subset(&["$ref", "description"].into()), "more than a reference: {place}");
    }
    if let Some(either) = value["anyOf"].as_array() {
        let is_optional = either.len() == 2 && either[1]["type"] == "null";
        assert!(is_optional, "more than what may be null: {place}");
    }
    if let Some(format) = value["format"].as_str() {
        assert!(["int32", "int64", "date-time", "uri-reference"].contains(&format), "{format} in {place}");
    }
    let is_component = place.strip_prefix("/components/schemas/").is_some_and(|name| !name.contains('/'));
    assert!(
        is_component || value["type"] != "object" || !has("properties"),
        "a type without a name: {place}"
    );
    for (name, child) in value.as_object().into_iter().flatten() {
        check_readable(child, &format!("{place}/{name}"));
    }
    for (index, child) in value.as_array().into_iter().flatten().enumerate() {
        check_readable(child, &format!("{place}/{index}"));
    }
}

#[tokio::test]
async fn every_code_has_a_page_and_every_page_a_code() {
    let mut sources = codes_in_sources();
    // A single process lets the second request wait instead; the code is documented for clients all the same.
    assert!(
        sources.insert("idempotency_key_in_use"),
        "the sources have it now, so the exception is obsolete"
    );
    assert!(sources.len() > 20, "{sources:?}");
    let errors = include_str!("../../../../docs/errors.md");
    let headings = errors.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(sources, headings);
    let document = document().await;
    assert_eq!(sources, names(&document["components"]["schemas"]["ProblemCode"]["enum"]));

    let server = server().await;
    let mut client = server.anonymous();
    for code in sources {
        let page = page(&client.get(&format!("/problems/{code}")).await);
        assert!(page.contains(code) && page.contains("Status "), "{page}");
    }
    client.get("/problems/no_such_code").await.expect_problem(404, "not_found");
}

/// The page in a response, which must load nothing from other sites and run no script.
fn page(response: &Response) -> String {
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(response.header("content-security-policy"), "default-src 'self'");
    let page = String::from_utf8(response.body.to_vec()).expect("text");
    for foreign in ["<script", "style=", "src=", "http://", "https://", "url("] {
        assert!(!page.contains(foreign), "{foreign} in {page}");
    }
    page
}

#[tokio::test]
async fn the_docs_page_shows_every_operation_and_schema() {
    let document = document().await;
    let server = server().await;
    let mut client = server.anonymous();
    let page = page(&client.get("/docs").await);
    for (method, path, operation) in operations(&document) {
        let id = operation["operationId"].as_str().expect("an id");
        assert!(page.contains(&format!("<section id=\"{id}\">")), "{method} {path}");
    }
    for name in names(&document["components"]["schemas"]) {
        assert!(page.contains(&format!("<section id=\"schema-{name}\">")), "{name}");
    }
    let links = page.split("href=\"#").skip(1).filter_map(|rest| rest.split('"').next());
    for link in links {
        assert!(page.contains(&format!("id=\"{link}\"")), "{link}");
    }
    let style = client.get("/docs/style.css").await;
    assert_eq!(style.header("content-type"), "text/css; charset=utf-8");
}

/// Checks a response against a schema, recursively.
#[track_caller]
fn check(document: &Value, schema: &Value, body: &Value, place: &str) {
    if let Some(target) = schema["$ref"].as_str() {
        let target = document.pointer(&target[1..]).expect("another test checks references");
        return check(document, target, body, place);
    }
    if let Some(either) = schema["anyOf"].as_array() {
        let fits = either.iter().find(|one| (one["type"] == "null") == body.is_null());
        return check(document, fits.unwrap_or_else(|| panic!("{place}: {body}")), body, place);
    }
    let kind = match body {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds = &schema["type"];
    assert!(kinds == kind || names(kinds).contains(kind), "{place} is {kind}, not {kinds}");
    if let Some(words) = schema["enum"].as_array().or_else(|| schema["x-extensible-enum"].as_array()) {
        assert!(words.contains(body), "{place} is {body}");
    }
    if let Some(members) = body.as_object() {
        let (present, known, required) =
            (names(body), names(&schema["properties"]), names(&schema["required"]));
        assert!(required.is_subset(&present), "{place}: {required:?} must be in {body}");
        assert!(present.is_subset(&known), "{place}: only {known:?} may be in {body}");
        for (name, member) in members {
            check(document, &schema["properties"][name], member, &format!("{place}/{name}"));
        }
    }
    for item in body.as_array().into_iter().flatten() {
        check(document, &schema["items"], item, &format!("{place}/-"));
    }
}

#[tokio::test]
async fn responses_match_their_schemas() {
    let document = document().await;
    let server = server().await;
    let mut admin = server.admin();
    let fits = |response: Response, operation: (&str, &str)| {
        let responses = &document["paths"][operation.0][operation.1]["responses"];
        let contents = &responses[response.status.as_str()]["content"];
        let schema = &contents[response.header("content-type")]["schema"];
        assert!(schema.is_object(), "{operation:?} does not name {response:?}");
        let body = response.json();
        check(&document, schema, &body, operation.0);
        if let Some(codes) = responses[response.status.as_str()]["x-codes"].as_array() {
            assert!(codes.contains(&body["code"]), "{operation:?} does not name {response:?}");
        }
        for (name, _) in responses[response.status.as_str()]["headers"].as_object().expect("headers") {
            let optional = ["Idempotent-Replayed", "RateLimit", "RateLimit-Policy"].contains(&name.as_str());
            assert!(
                optional || !response.header(name).is_empty(),
                "{operation:?} has no {name}: {response:?}"
            );
        }
        body
    };

    let all_fields = json!({
        "timeZone": "Europe/Berlin", "salesStartAt": "2020-01-01T00:00:00Z", "holdSeconds": 600,
        "salesEndAt": "2099-01-01T00:00:00Z", "maxTicketsPerUser": 8, "price": null,
        "ticketTypes": [
            {"name": "standing", "price": {"amount": 4500, "currency": "EUR"}},
            {"name": "VIP", "price": {"amount": 9000, "currency": "EUR"}, "capacity": 2},
        ],
    });
    let body = with_fields(event_body(5), &all_fields);
    let event = fits(admin.post("/v1/events", &body).await, ("/v1/events", "post"));
    let (event_id, vip) = (id_of(&event), event["ticketTypes"][1]["id"].clone());
    let one = format!("/v1/events/{event_id}");
    fits(admin.get(&one).await, ("/v1/events/{id}", "get"));
    fits(admin.patch(&one, &json!({"name": "Later"})).await, ("/v1/events/{id}", "patch"));
    fits(admin.get("/v1/events").await, ("/v1/events", "get"));
    let place = format!("{one}/availability");
    fits(admin.get(&place).await, ("/v1/events/{id}/availability", "get"));

    let order = json!({
        "eventId": event_id, "userId": "ada", "paymentMethod": "card",
        "items": [{"ticketTypeId": vip, "quantity": 2}],
    });
    let create = ("/v1/bookings", "post");
    let booking = id_of(&fits(admin.post("/v1/bookings", &order).await, create));
    fits(admin.post("/v1/bookings", &order).await, create);
    fits(admin.post("/v1/bookings", &with_fields(order.clone(), &json!({"items": null}))).await, create);
    fits(admin.post_text("/v1/bookings", "{").await, create);
    fits(server.anonymous().post("/v1/bookings", &order).await, create);

    let of = |rest: &str| format!("/v1/bookings/{booking}{rest}");
    fits(admin.confirm(&booking, "tx-1").await, ("/v1/bookings/{id}/confirm", "post"));
    fits(admin.confirm(&booking, "tx-2").await, ("/v1/bookings/{id}/confirm", "post"));
    let validate = ("/v1/bookings/{id}/validate", "get");
    fits(admin.get(&of(&format!("/validate?eventId={event_id}"))).await, validate);
    let stale = admin.post(&of("/cancel"), &json!({"reason": "ill"})).await;
    fits(stale, ("/v1/bookings/{id}/cancel", "post"));
    fits(admin.get(&of(&format!("/validate?eventId={event_id}"))).await, validate);
    fits(admin.get(&of("")).await, ("/v1/bookings/{id}", "get"));
    fits(admin.get("/v1/bookings/none").await, ("/v1/bookings/{id}", "get"));
    fits(admin.get("/v1/bookings").await, ("/v1/bookings", "get"));
    fits(admin.get(&format!("{one}/ledger")).await, ("/v1/events/{id}/ledger", "get"));
    fits(server.user("ada").get(&format!("{one}/ledger")).await, ("/v1/events/{id}/ledger", "get"));

    let refunds = fits(admin.get("/v1/refunds").await, ("/v1/refunds", "get"));
    let settle = format!("/v1/refunds/{}/settle", id_of(&refunds["data"][0]));
    let outcome = json!({"outcome": "succeeded", "providerReference": "re-1"});
    fits(admin.post(&settle, &outcome).await, ("/v1/refunds/{id}/settle", "post"));
    fits(admin.get("/v1/stats").await, ("/v1/stats", "get"));
}
