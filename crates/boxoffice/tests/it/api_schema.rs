//! The documented API, written down a second time and compared with the OpenAPI document, so that nothing
//! that clients rely on gets lost or is renamed. Other tests check the behaviour of the server.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::openapi::{document, names, operations};

/// Each schema with its required and its optional fields.
const FIELDS: [(&str, &str, &str); 17] = [
    (
        "CreateEvent",
        "name venue startsAt capacity",
        "timeZone price ticketTypes salesStartAt salesEndAt holdSeconds cancelCutoffSeconds \
         maxTicketsPerBooking maxTicketsPerUser",
    ),
    ("NewTicketType", "name price", "capacity"),
    (
        "UpdateEvent",
        "",
        "name venue startsAt capacity timeZone price ticketTypes salesStartAt salesEndAt holdSeconds \
         cancelCutoffSeconds maxTicketsPerBooking maxTicketsPerUser status",
    ),
    ("TicketTypeEdit", "id", "name price capacity"),
    (
        "Event",
        "id name venue startsAt capacity ticketTypes holdSeconds cancelCutoffSeconds maxTicketsPerBooking \
         status held sold available version createdAt updatedAt",
        "timeZone price salesStartAt salesEndAt maxTicketsPerUser",
    ),
    ("TicketType", "id name price capacity held sold available", ""),
    ("Availability", "capacity held sold available soldOut eventSeq asOf ticketTypes", ""),
    ("TicketTypeAvailability", "id capacity held sold available soldOut", ""),
    (
        "LedgerEntry",
        "eventSeq type items quantity availableAfter actor requestId at",
        "bookingId refundId from to previousSeq",
    ),
    (
        "CreateBooking",
        "eventId",
        "ticketQuantity items expectedTotal paymentMethod externalRef metadata userId",
    ),
    (
        "Booking",
        "id eventId userId status paymentStatus ticketQuantity items total holdExpiresAt expiresIn version \
         createdAt updatedAt",
        "paymentMethod externalRef metadata paymentTransactionId cancellationReason confirmedAt cancelledAt \
         expiredAt",
    ),
    ("Item", "ticketTypeId name quantity unitPrice", ""),
    ("ConfirmBooking", "paymentTransactionId", "amount"),
    ("CancelBooking", "", "reason"),
    (
        "Refund",
        "id bookingId eventId paymentTransactionId amount status reason createdAt",
        "providerReference settledAt",
    ),
    ("SettleRefund", "outcome providerReference", ""),
    (
        "Stats",
        "totalBookings pendingBookings confirmedBookings cancelledBookings expiredBookings revenue",
        "",
    ),
];

/// Each enum with its values.
const ENUMS: [(&str, &str); 5] = [
    ("EventStatus", "onSale paused cancelled"),
    ("BookingStatus", "pending confirmed cancelled expired"),
    ("PaymentStatus", "pending paid failed refundRequested refunded"),
    ("RefundStatus", "requested succeeded failed"),
    (
        "EntryKind",
        "booking.created booking.confirmed booking.cancelled booking.expired refund.requested refund.settled \
         event.created event.updated event.cancelled",
    ),
];

/// Problem codes with their HTTP status.
const CODES: [(u16, &str); 16] = [
    (400, "malformed_request"),
    (401, "unauthenticated"),
    (403, "forbidden"),
    (404, "not_found"),
    (405, "method_not_allowed"),
    (
        409,
        "sold_out insufficient_availability sales_not_open sales_closed event_started event_paused \
         event_cancelled",
    ),
    (409, "external_ref_in_use hold_expired invalid_state cancel_cutoff_passed capacity_in_use"),
    (409, "idempotency_key_in_use"),
    (412, "version_mismatch"),
    (413, "payload_too_large"),
    (415, "unsupported_media_type"),
    (422, "validation_failed amount_mismatch booking_limit_exceeded idempotency_key_reused"),
    (429, "rate_limited"),
    (500, "internal_error"),
    (503, "overloaded unavailable"),
    (503, "outcome_unknown"),
];

/// Codes that no test can provoke: a single process lets a repeated request wait, and an unknown outcome of a
/// commit needs a disk that fails at that moment. `problem.rs` tests the form of the latter.
const NOT_EXPECTED: [&str; 2] = ["idempotency_key_in_use", "outcome_unknown"];

fn words(text: &str) -> BTreeSet<&str> {
    text.split_whitespace().collect()
}

fn codes() -> BTreeMap<&'static str, u16> {
    CODES.iter().flat_map(|(status, codes)| words(codes).into_iter().map(|code| (code, *status))).collect()
}

#[tokio::test]
async fn every_documented_field_is_described_and_no_other() {
    let document = document().await;
    for (schema, required, optional) in FIELDS {
        let described = &document["components"]["schemas"][schema];
        assert_eq!(names(&described["required"]), words(required), "{schema}");
        let all = words(required).union(&words(optional)).copied().collect();
        assert_eq!(names(&described["properties"]), all, "{schema}");
    }
    for (schema, all) in ENUMS {
        let described = &document["components"]["schemas"][schema];
        assert_eq!(names(&described["enum"]), words(all), "{schema}");
    }
}

#[tokio::test]
async fn every_documented_code_is_described_with_its_status() {
    let document = document().await;
    let codes = codes();
    let described = names(&document["components"]["schemas"]["ProblemCode"]["enum"]);
    assert_eq!(described, codes.keys().copied().collect());
    for (method, path, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().into_iter().flatten() {
            for code in names(&response["x-codes"]) {
                assert_eq!(codes[code].to_string(), *status, "{code} of {method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn every_documented_header_is_described_where_it_is_sent() {
    let document = document().await;
    let headers = |method: &str, path: &str, status: &str| -> BTreeSet<String> {
        let headers = &document["paths"][path][method]["responses"][status]["headers"];
        names(headers).into_iter().map(str::to_owned).collect()
    };
    for (method, path, status, sent) in [
        ("post", "/v1/events", "201", "Location ETag Idempotent-Replayed X-Request-Id"),
        ("get", "/v1/events/{id}", "200", "ETag X-Request-Id"),
        ("patch", "/v1/events/{id}", "200", "ETag X-Request-Id"),
        (
            "post",
            "/v1/bookings",
            "201",
            "Location RateLimit RateLimit-Policy Idempotent-Replayed X-Request-Id",
        ),
        ("post", "/v1/bookings", "409", "RateLimit RateLimit-Policy X-Request-Id"),
        ("post", "/v1/bookings", "429", "Retry-After RateLimit RateLimit-Policy X-Request-Id"),
        (
            "post",
            "/v1/bookings/{id}/cancel",
            "200",
            "RateLimit RateLimit-Policy Idempotent-Replayed X-Request-Id",
        ),
        (
            "post",
            "/v1/bookings/{id}/cancel",
            "404",
            "RateLimit RateLimit-Policy Idempotent-Replayed X-Request-Id",
        ),
        ("get", "/v1/stats", "401", "WWW-Authenticate X-Request-Id"),
        ("get", "/v1/stats", "503", "Retry-After X-Request-Id"),
    ] {
        let sent: BTreeSet<String> = words(sent).into_iter().map(str::to_owned).collect();
        assert_eq!(headers(method, path, status), sent, "{status} of {method} {path}");
    }
    for (method, path, operation) in operations(&document) {
        let parameters: Vec<&str> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["$ref"].as_str())
            .collect();
        let takes = |name: &str| parameters.contains(&format!("#/components/parameters/{name}").as_str());
        assert_eq!(takes("IdempotencyKey"), method == "post", "{method} {path}");
        assert_eq!(takes("IfMatch"), method == "patch", "{method} {path}");
    }
}

/// The tests of this binary expect every code, with `expect_problem` or `expect_invalid`.
#[test]
fn every_documented_code_is_expected_by_a_test() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it");
    let files = std::fs::read_dir(folder).expect("the tests").map(|file| file.expect("a file").path());
    let sources = files.filter(|file| file.extension().is_some_and(|end| end == "rs"));
    let sources: Vec<String> = sources.map(|file| std::fs::read_to_string(file).expect("text")).collect();
    for (code, status) in codes() {
        let expectation = format!("expect_problem({status}, \"{code}\")");
        let is_expected = sources.iter().any(|source| {
            source.contains(&expectation)
                || source.contains("expect_invalid()") && code == "validation_failed"
        });
        assert_ne!(is_expected, NOT_EXPECTED.contains(&code), "{expectation}");
    }
}

#[tokio::test]
async fn every_list_is_a_page_with_a_cursor() {
    let document = document().await;
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    let pages: Vec<(&String, &Value)> =
        schemas.iter().filter(|(name, _)| name.starts_with("PageOf")).collect();
    assert_eq!(pages.len(), 4);
    for (name, page) in pages {
        assert_eq!(names(&page["properties"]), words("data nextCursor"), "{name}");
        assert_eq!(names(&page["required"]), words("data nextCursor"), "{name}");
    }
}
