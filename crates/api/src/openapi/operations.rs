//! The table of all operations of the API. It has only the facts that are not elsewhere: fields come from the
//! wire types, the status codes and members of problems from `docs/errors.md`.

use std::borrow::Cow;

use domain::{BookingId, BookingStatus, EventId, ExternalRef, RefundId, RefundStatus, UserId};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::limit::{LIST_ROWS_DEFAULT, LIST_ROWS_MAX};
use crate::wire::{
    As, AvailabilityView, BookingView, CancelRequest, ConfirmRequest, CreateBooking, CreateEvent, EntryView,
    EventView, HealthView, PageView, RefundView, SettleRequest, StatsView, UpdateEvent, ValidationView,
};

/// Generates the schema of a type, and those it refers to.
pub(super) type SchemaFn = fn(&mut SchemaGenerator) -> Schema;

/// One route and method.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// The unique name of the operation, also in generated clients.
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    /// The roles that may call it; empty if no token is needed.
    pub(super) roles: &'static [&'static str],
    pub(super) query: &'static [QueryParameter],
    pub(super) body: Option<Body>,
    pub(super) success: SuccessResponse,
    /// True if it changes state, and so goes through the desk's queue.
    pub(super) writes: bool,
    /// True if it accepts an `Idempotency-Key`.
    pub(super) idempotency_key: bool,
    /// True if it accepts `If-Match`.
    pub(super) if_match: bool,
    /// The per-user rate limit that applies to it.
    pub(super) limit: Option<&'static str>,
    /// The problem codes that do not follow from the other fields.
    pub(super) extra_codes: &'static [&'static str],
}

pub(super) struct QueryParameter {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) required: bool,
    pub(super) schema: SchemaFn,
}

pub(super) struct Body {
    pub(super) required: bool,
    pub(super) schema: SchemaFn,
}

pub(super) struct SuccessResponse {
    pub(super) status: &'static str,
    pub(super) media_type: &'static str,
    pub(super) description: &'static str,
    pub(super) schema: SchemaFn,
    /// Headers besides those of every response.
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

/// The schema of the OpenAPI document.
struct Description;

impl JsonSchema for Description {
    fn schema_name() -> Cow<'static, str> {
        "Description".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "description": "An OpenAPI 3.1 document."})
    }
}

fn sequence_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": "^(0|[1-9][0-9]{0,17})$"})
}

fn limit_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 1, "maximum": LIST_ROWS_MAX, "default": LIST_ROWS_DEFAULT})
}

const fn query(name: &'static str, schema: SchemaFn, description: &'static str) -> QueryParameter {
    QueryParameter { name, description, required: false, schema }
}

const LIMIT: QueryParameter = query("limit", limit_schema, "Maximum number of rows to return.");

/// The cursor of a list: the id or the sequence number of the last row of the previous page.
const fn after(schema: SchemaFn) -> QueryParameter {
    query("after", schema, "The `nextCursor` of the previous page.")
}

const fn ok(schema: SchemaFn, description: &'static str) -> SuccessResponse {
    SuccessResponse { status: "200", media_type: "application/json", description, schema, headers: &[] }
}

const fn html_page(description: &'static str) -> SuccessResponse {
    SuccessResponse { media_type: "text/html; charset=utf-8", ..ok(text_schema, description) }
}

const fn read(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    success: SuccessResponse,
) -> Operation {
    Operation {
        method: "get",
        path,
        id,
        summary,
        roles: PUBLIC,
        query: &[],
        body: None,
        success,
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
    body: SchemaFn,
    success: SuccessResponse,
) -> Operation {
    let body = Some(Body { required: true, schema: body });
    Operation {
        method: "post",
        body,
        writes: true,
        idempotency_key: true,
        ..read(path, id, summary, success)
    }
}

const EVENT: SuccessResponse =
    SuccessResponse { headers: &["ETag"], ..ok(schema_of::<EventView<'static>>, "The event.") };
const NEW_EVENT: SuccessResponse =
    SuccessResponse { status: "201", headers: &["ETag", "Location"], description: "The new event.", ..EVENT };
const BOOKING: SuccessResponse = ok(schema_of::<BookingView<'static>>, "The booking.");
const NEW_BOOKING: SuccessResponse =
    SuccessResponse { status: "201", headers: &["Location"], description: "The new booking.", ..BOOKING };

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
        "Read the availability of an event. Includes every change acknowledged before, by any instance.",
        ok(schema_of::<AvailabilityView>, "The availability."),
    ),
    read(
        "/v1/events/{id}/availability/stream",
        "streamAvailability",
        "Watch the availability of an event: server-sent events named `availability`, at once and on every \
         change, with the response of `getAvailability` as data.",
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
            "external_ref_in_use",
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
            "Book tickets: all that are requested, or none. A user can book only for itself.",
            schema_of::<CreateBooking>,
            NEW_BOOKING,
        )
    },
    Operation {
        roles: ANY_ROLE,
        query: &[
            LIMIT,
            after(schema_of::<As<BookingId>>),
            query("eventId", schema_of::<As<EventId>>, "Only bookings of this event."),
            query(
                "userId",
                schema_of::<As<UserId>>,
                "Only bookings of this user. Defaults to the caller for role user.",
            ),
            query("status", schema_of::<As<BookingStatus>>, "Only bookings with this status."),
            query(
                "externalRef",
                schema_of::<As<ExternalRef>>,
                "Only bookings with this external reference: at most one for each event.",
            ),
        ],
        extra_codes: &["forbidden"],
        ..read(
            "/v1/bookings",
            "listBookings",
            "List bookings, newest first: its own for role user, all for roles service and admin.",
            ok(schema_of::<PageView<BookingView<'static>>>, "A page of bookings."),
        )
    },
    Operation {
        roles: ANY_ROLE,
        ..read(
            "/v1/bookings/{id}",
            "getBooking",
            "Read a booking. For role user, a booking of another user is not found.",
            BOOKING,
        )
    },
    Operation {
        roles: SERVICES,
        extra_codes: &["event_cancelled", "hold_expired", "invalid_state", "amount_mismatch"],
        ..post(
            "/v1/bookings/{id}/confirm",
            "confirmBooking",
            "Report a captured payment. Repeating the same transaction returns the same result.",
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
            "Cancel a booking. Releases its tickets and, if it was paid, records one refund. The rate limit \
             applies to role user only.",
            schema_of::<CancelRequest>,
            BOOKING,
        )
    },
    Operation {
        roles: SERVICES,
        query: &[QueryParameter {
            required: true,
            ..query("eventId", schema_of::<As<EventId>>, "The event at which the booking is presented.")
        }],
        ..read(
            "/v1/bookings/{id}/validate",
            "validateBooking",
            "Check if a booking is valid for admission to an event.",
            ok(schema_of::<ValidationView<'static>>, "The result of the check."),
        )
    },
    Operation {
        roles: SERVICES,
        query: &[
            LIMIT,
            after(schema_of::<As<RefundId>>),
            query("status", schema_of::<As<RefundStatus>>, "Only refunds with this status."),
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
            "Report the outcome of a pay-out. Repeating the same outcome settles only once.",
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
            ok(schema_of::<StatsView>, "The totals of all events."),
        )
    },
    read(
        "/livez",
        "isAlive",
        "Check if the process is running.",
        ok(schema_of::<HealthView>, "It is running."),
    ),
    Operation {
        query: &[query("verbose", text_schema, "Includes the state of every component. Needs no value.")],
        extra_codes: &["unavailable"],
        ..read("/readyz", "isReady", "Check if the service can sell.", ok(schema_of::<HealthView>, "It can."))
    },
    Operation {
        extra_codes: &["internal_error"],
        ..read(
            "/metrics",
            "getMetrics",
            "Read the metrics, unless they have a separate listener.",
            SuccessResponse {
                media_type: crate::metrics::CONTENT_TYPE,
                ..ok(text_schema, "Metrics in the OpenMetrics text format.")
            },
        )
    },
    read(
        "/openapi.json",
        "getDescription",
        "Read this OpenAPI document.",
        ok(schema_of::<Description>, "The document."),
    ),
    read("/docs", "readDescription", "Read this document as a page.", html_page("A page.")),
    read(
        "/docs/style.css",
        "getStyle",
        "Read the style sheet of the pages.",
        SuccessResponse { media_type: "text/css; charset=utf-8", ..html_page("A style sheet.") },
    ),
    read(
        "/problems/{code}",
        "readProblem",
        "Read the documentation of a problem code.",
        html_page("A page."),
    ),
];
