// Books with the types that openapi-typescript generates. Prints the ids of the booking and of its refund.

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./generated/boxoffice.js";

type Schemas = components["schemas"];

/** A client with the token of a role. */
function client(role: string) {
    const headers = { Authorization: `Bearer ${process.env[`TOKEN_${role}`]}` };
    return createClient<paths>({ baseUrl: process.env["BASE_URL"] ?? "", headers });
}

type FetchResult<T> = { data?: T; error?: Schemas["Problem"] | undefined; response: Response };

function success<T>({ data, error }: FetchResult<T>): T {
    assert(data !== undefined, JSON.stringify(error));
    return data;
}

function refusal(
    { error, response }: FetchResult<unknown>,
    code: Schemas["ProblemCode"],
): Schemas["Problem"] {
    assert(error !== undefined, `${response.status}, not ${code}`);
    assert.equal(error.code, code);
    assert.equal(error.status, response.status);
    return error;
}

const [admin, service, buyer] = [client("ADMIN"), client("SERVICE"), client("BUYER")];

const event = success(
    await admin.POST("/v1/events", {
        body: {
            name: "Concert",
            venue: "Hall",
            startsAt: "2099-01-01T20:00:00Z",
            capacity: 3,
            price: { amount: 4500, currency: "EUR" },
        },
    }),
);
assert.equal(event.status, "onSale");
assert.equal(event.available, 3);

const book = (body: Schemas["CreateBooking"], key: string) =>
    buyer.POST("/v1/bookings", { body, params: { header: { "Idempotency-Key": key } } });

const two = { eventId: event.id, ticketQuantity: 2 };
const booking = success(await book(two, "first"));
const pending: Schemas["BookingStatus"] = booking.status;
assert.equal(pending, "pending");
assert.deepEqual(booking.total, { amount: 9000, currency: "EUR" });
assert.equal(success(await book(two, "first")).id, booking.id, "a repeated request gives the same booking");

const few = refusal(await book(two, "second"), "insufficient_availability");
assert.deepEqual([few.status, few.requested, few.available], [409, 2, 1]);

const [ticketType] = event.ticketTypes;
assert(ticketType);
const last = { eventId: event.id, items: [{ ticketTypeId: ticketType.id, quantity: 1 }] };
const other = success(await book(last, "third"));
assert.equal(refusal(await book(last, "fourth"), "sold_out").available, 0);
const invalid = refusal(await book({ ...last, ticketQuantity: 1 }, "fifth"), "validation_failed");
assert.match(invalid.errors?.[0]?.detail ?? "", /not both/);
const wrongTotal = { eventId: event.id, ticketQuantity: 1, expectedTotal: { amount: 1, currency: "EUR" } };
assert.equal(refusal(await book(wrongTotal, "sixth"), "amount_mismatch").expected?.amount, 4500);

const ofBooking = { params: { path: { id: booking.id } } };
const payment = { body: { paymentTransactionId: "tx-1", amount: booking.total }, ...ofBooking };
const confirmed = success(await service.POST("/v1/bookings/{id}/confirm", payment));
assert.deepEqual([confirmed.status, confirmed.paymentStatus], ["confirmed", "paid"]);
refusal(await buyer.POST("/v1/bookings/{id}/confirm", payment), "forbidden");

const reason = { body: { reason: "ill" }, ...ofBooking };
const cancelled = success(await buyer.POST("/v1/bookings/{id}/cancel", reason));
assert.deepEqual([cancelled.status, cancelled.paymentStatus], ["cancelled", "refundRequested"]);
assert.equal(cancelled.cancellationReason, "ill");
const again = refusal(await buyer.POST("/v1/bookings/{id}/cancel", ofBooking), "invalid_state");
assert.equal(again.bookingStatus, "cancelled");
const unpaid = success(await buyer.POST("/v1/bookings/{id}/cancel", { params: { path: { id: other.id } } }));
assert.equal(unpaid.paymentStatus, "failed");

const requested = await service.GET("/v1/refunds", { params: { query: { status: "requested" } } });
const [refund, ...more] = success(requested).data;
assert(refund && more.length === 0);
assert.equal(refund.bookingId, booking.id);
assert.deepEqual(refund.amount, booking.total);
assert.equal(refund.reason, "booking_cancelled");
const outcome = { outcome: "succeeded", providerReference: "re-1" } as const;
const settle = { body: outcome, params: { path: { id: refund.id } } };
assert.equal(success(await service.POST("/v1/refunds/{id}/settle", settle)).status, "succeeded");

const page = success(await buyer.GET("/v1/bookings", { params: { query: { limit: 1 } } }));
assert.equal(page.nextCursor, page.data[0]?.id);
const after = { params: { query: { limit: 1, after: page.nextCursor ?? "" } } };
const rest = success(await buyer.GET("/v1/bookings", after));
assert.deepEqual([rest.data[0]?.id, rest.nextCursor], [booking.id, null]);

const ofEvent = { params: { path: { id: event.id } } };
assert.equal(success(await buyer.GET("/v1/events/{id}/availability", ofEvent)).available, 3);
const created: Schemas["EntryKind"] = "event.created";
assert.equal(success(await admin.GET("/v1/events/{id}/ledger", ofEvent)).data[0]?.type, created);

const edit = (name: string) => {
    const params = { path: { id: event.id }, header: { "If-Match": '"1"' } };
    return admin.PATCH("/v1/events/{id}", { body: { name }, params });
};
assert.equal(success(await edit("Gala")).version, 2);
assert.equal(refusal(await edit("Ball"), "version_mismatch").status, 412);

console.log(JSON.stringify({ booking: booking.id, refund: refund.id }));
