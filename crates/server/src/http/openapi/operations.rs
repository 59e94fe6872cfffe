//! Every operation of the API, one entry each: what only this table knows. Fields come from the wire types,
//! statuses and members of refusals from `docs/errors.md`.

use std::borrow::Cow;

use domain::{BookingId, BookingStatus, EventId, RefundId, RefundStatus, UserId};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::limit::{LIST_ROWS_DEFAULT, LIST_ROWS_MAX};
use crate::wire::{
    As, AvailabilityView, BookingView, CancelRequest, ConfirmRequest, CreateBooking, CreateEvent, EntryView,
    EventView, HealthView, PageView, RefundView, SettleRequest, StatsView, UpdateEvent, ValidationView,
};

/// Makes the schema of a type, and those it needs.
pub(super) type SchemaFn = fn(&mut SchemaGenerator) -> Schema;

/// One route and method.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// Unique; what generators of clients call it.
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    /// Who may call; empty for everybody, without a token.
    pub(super) roles: &'static [&'static str],
    pub(super) query: &'static [QueryParameter],
    pub(super) body: Option<Body>,
    pub(super) success: SuccessResponse,
    /// Changes something, and so waits for its turn.
    pub(super) writes: bool,
    /// Takes an `Idempotency-Key`.
    pub(super) idempotency_key: bool,
    /// Takes `If-Match`.
    pub(super) if_match: bool,
    /// Stands behind this limit per user.
    pub(super) limit: Option<&'static str>,
    /// The codes that do not follow from the rest.
    pub(super) extra_codes: &'static [&'static str],
}

pub(super) struct QueryParameter {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) required: bool,
    pub(super) kind: SchemaFn,
}

pub(super) struct Body {
    pub(super) required: bool,
    pub(super) schema: SchemaFn,
}

pub(super) struct SuccessResponse {
    pub(super) status: &'static str,
    pub(super) media_type: &'static str,
    pub(super) about: &'static str,
    pub(super) kind: SchemaFn,
    /// Besides those of every answer.
    pub(super) headers: &'static [&'static str],
}

const PUBLIC: &[&str] = &[];
const ANY_ROLE: &[&str] = &["user", "service", "admin"];
const SERVICES: &[&str] = &["service", "admin"];
const ADMINS: &[&str] = &["admin"];

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

fn text_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string"})
}

/// The document itself.
struct Description;

impl JsonSchema for Description {
    fn schema_name() -> Cow<'static, str> {
        "Description".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "description": "A document of OpenAPI 3.1."})
    }
}

fn sequence_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": "^(0|[1-9][0-9]{0,17})$"})
}

fn limit_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 1, "maximum": LIST_ROWS_MAX, "default": LIST_ROWS_DEFAULT})
}

const fn query(name: &'static str, kind: SchemaFn, about: &'static str) -> QueryParameter {
    QueryParameter { name, about, required: false, kind }
}

const LIMIT: QueryParameter = query("limit", limit_schema, "How many rows are wanted.");

/// The cursor of a list: what the last row of the page before is named by.
const fn after(kind: SchemaFn) -> QueryParameter {
    query("after", kind, "The `nextCursor` of the page before.")
}

const fn ok(kind: SchemaFn, about: &'static str) -> SuccessResponse {
    SuccessResponse { status: "200", media_type: "application/json", about, kind, headers: &[] }
}

const fn page(about: &'static str) -> SuccessResponse {
    SuccessResponse { media_type: "text/html; charset=utf-8", ..ok(text_schema, about) }
}

const fn read(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    answer: SuccessResponse,
) -> Operation {
    Operation {
        method: "get",
        path,
        id,
        summary,
        roles: PUBLIC,
        query: &[],
        body: None,
        success: answer,
        writes: false,
        idempotency_key: false,
        if_match: false,
        limit: None,
        extra_codes: &[],
    }
}

const fn post(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    kind: SchemaFn,
    answer: SuccessResponse,
) -> Operation {
    let body = Some(Body { required: true, schema: kind });
    Operation { method: "post", body, writes: true, idempotency_key: true, ..read(path, id, summary, answer) }
}

const EVENT: SuccessResponse =
    SuccessResponse { headers: &["ETag"], ..ok(schema_of::<EventView<'static>>, "The event.") };
const NEW_EVENT: SuccessResponse =
    SuccessResponse { status: "201", headers: &["ETag", "Location"], about: "The new event.", ..EVENT };
const BOOKING: SuccessResponse = ok(schema_of::<BookingView<'static>>, "The booking.");
const NEW_BOOKING: SuccessResponse =
    SuccessResponse { status: "201", headers: &["Location"], about: "The new booking.", ..BOOKING };

/// Every operation, in the order of the document.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        roles: ADMINS,
        ..post("/v1/events", "createEvent", "Put an event on sale.", schema_of::<CreateEvent>, NEW_EVENT)
    },
    Operation {
        query: &[LIMIT, after(schema_of::<As<EventId>>)],
        ..read(
            "/v1/events",
            "listEvents",
            "List the events, newest first.",
            ok(schema_of::<PageView<EventView<'static>>>, "A page of events."),
        )
    },
    read("/v1/events/{id}", "getEvent", "Read an event.", EVENT),
    Operation {
        method: "patch",
        roles: ADMINS,
        idempotency_key: false,
        if_match: true,
        extra_codes: &["not_found", "event_cancelled", "capacity_in_use", "version_mismatch"],
        ..post(
            "/v1/events/{id}",
            "updateEvent",
            "Edit, pause, resume or cancel an event.",
            schema_of::<UpdateEvent>,
            EVENT,
        )
    },
    read(
        "/v1/events/{id}/availability",
        "getAvailability",
        "Read what is left of an event. Shows every change acknowledged before, by any instance.",
        ok(schema_of::<AvailabilityView>, "What is left."),
    ),
    read(
        "/v1/events/{id}/availability/stream",
        "streamAvailability",
        "Watch what is left of an event: server-sent events named `availability`, at once and on change, \
         whose data is the answer of `getAvailability`.",
        SuccessResponse { media_type: "text/event-stream", ..ok(text_schema, "A stream that stays open.") },
    ),
    Operation {
        roles: ADMINS,
        query: &[LIMIT, after(sequence_schema)],
        ..read(
            "/v1/events/{id}/ledger",
            "listLedger",
            "List the ledger of an event, oldest entry first.",
            ok(schema_of::<PageView<EntryView<'static>>>, "A page of ledger entries."),
        )
    },
    Operation {
        roles: ANY_ROLE,
        limit: Some("book"),
        extra_codes: &[
            "forbidden",
            "not_found",
            "sold_out",
            "insufficient_availability",
            "sales_not_open",
            "sales_closed",
            "event_started",
            "event_paused",
            "event_cancelled",
            "amount_mismatch",
            "booking_limit_exceeded",
        ],
        ..post(
            "/v1/bookings",
            "createBooking",
            "Hold tickets: all that are asked for, or none. A user books for itself only.",
            schema_of::<CreateBooking>,
            NEW_BOOKING,
        )
    },
    Operation {
        roles: ANY_ROLE,
        query: &[
            LIMIT,
            after(schema_of::<As<BookingId>>),
            query("eventId", schema_of::<As<EventId>>, "Only those of this event."),
            query("userId", schema_of::<As<UserId>>, "Only those of this user; oneself for a user."),
            query("status", schema_of::<As<BookingStatus>>, "Only those that stand there."),
        ],
        extra_codes: &["forbidden"],
        ..read(
            "/v1/bookings",
            "listBookings",
            "List bookings, newest first: a user's own, or anybody's for a service or an admin.",
            ok(schema_of::<PageView<BookingView<'static>>>, "A page of bookings."),
        )
    },
    Operation {
        roles: ANY_ROLE,
        ..read("/v1/bookings/{id}", "getBooking", "Read a booking; somebody else's is not found.", BOOKING)
    },
    Operation {
        roles: SERVICES,
        extra_codes: &["event_cancelled", "hold_expired", "invalid_state", "amount_mismatch"],
        ..post(
            "/v1/bookings/{id}/confirm",
            "confirmBooking",
            "Report a captured payment. The same transaction again is answered alike.",
            schema_of::<ConfirmRequest>,
            BOOKING,
        )
    },
    Operation {
        roles: ANY_ROLE,
        body: Some(Body { required: false, schema: schema_of::<CancelRequest> }),
        limit: Some("cancel"),
        extra_codes: &["invalid_state", "cancel_cutoff_passed"],
        ..post(
            "/v1/bookings/{id}/cancel",
            "cancelBooking",
            "Give a booking up. Frees its tickets and, where it was paid, records one refund. The limit binds \
             role user only.",
            schema_of::<CancelRequest>,
            BOOKING,
        )
    },
    Operation {
        roles: SERVICES,
        query: &[QueryParameter {
            required: true,
            ..query("eventId", schema_of::<As<EventId>>, "The event at whose door it is shown.")
        }],
        ..read(
            "/v1/bookings/{id}/validate",
            "validateBooking",
            "Tell whether a booking lets people in.",
            ok(schema_of::<ValidationView<'static>>, "Whether it does."),
        )
    },
    Operation {
        roles: SERVICES,
        query: &[
            LIMIT,
            after(schema_of::<As<RefundId>>),
            query("status", schema_of::<As<RefundStatus>>, "Only those that stand there."),
        ],
        ..read(
            "/v1/refunds",
            "listRefunds",
            "List refunds, newest first.",
            ok(schema_of::<PageView<RefundView<'static>>>, "A page of refunds."),
        )
    },
    Operation {
        roles: SERVICES,
        extra_codes: &["invalid_state"],
        ..post(
            "/v1/refunds/{id}/settle",
            "settleRefund",
            "Report what became of a pay-out. The same outcome twice is one settlement.",
            schema_of::<SettleRequest>,
            ok(schema_of::<RefundView<'static>>, "The refund."),
        )
    },
    Operation {
        roles: ADMINS,
        ..read(
            "/v1/stats",
            "getStats",
            "Count bookings and revenue.",
            ok(schema_of::<StatsView>, "The counts of all events."),
        )
    },
    read("/livez", "isAlive", "Tell whether the process answers.", ok(schema_of::<HealthView>, "It does.")),
    Operation {
        query: &[query("verbose", text_schema, "Asks for what every part has to say; needs no value.")],
        extra_codes: &["unavailable"],
        ..read(
            "/readyz",
            "isReady",
            "Tell whether the service can sell.",
            ok(schema_of::<HealthView>, "It can."),
        )
    },
    Operation {
        extra_codes: &["internal_error"],
        ..read(
            "/metrics",
            "getMetrics",
            "Read the metrics, unless they have a listener of their own.",
            SuccessResponse {
                media_type: crate::telemetry::CONTENT_TYPE,
                ..ok(text_schema, "For Prometheus.")
            },
        )
    },
    read(
        "/openapi.json",
        "getDescription",
        "Read this description.",
        ok(schema_of::<Description>, "OpenAPI 3.1."),
    ),
    read("/docs", "readDescription", "Read this description as a page.", page("A page.")),
    read(
        "/docs/style.css",
        "getStyle",
        "The style of the pages.",
        SuccessResponse { media_type: "text/css; charset=utf-8", ..page("A style sheet.") },
    ),
    read("/problems/{code}", "readProblem", "Read what a code of a problem means.", page("A page.")),
];
