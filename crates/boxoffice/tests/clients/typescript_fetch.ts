// Books with the client that OpenAPI Generator makes for fetch. Prints the ids of the booking and of its
// refund.

import assert from "node:assert/strict";
import {
    type Booking,
    BookingStatus,
    BookingsApi,
    Configuration,
    type CreateBooking,
    EntryKind,
    EventsApi,
    PaymentStatus,
    type Problem,
    ProblemCode,
    ProblemFromJSON,
    RefundStatus,
    RefundsApi,
    ResponseError,
    SettlementOutcome,
} from "./generated/typescript-fetch/index.js";

/** A client with the token of a role. */
const client = (role: string) =>
    new Configuration({
        basePath: process.env["BASE_URL"] ?? "",
        accessToken: process.env[`TOKEN_${role}`] ?? "",
    });

async function refusal(call: Promise<unknown>, code: ProblemCode): Promise<Problem> {
    const error = await call.then(
        (response) => assert.fail(`${JSON.stringify(response)}, not ${code}`),
        (error: unknown) => error,
    );
    assert(error instanceof ResponseError, String(error));
    const problem = ProblemFromJSON(await error.response.json());
    assert.equal(problem.code, code);
    assert.equal(problem.status, error.response.status);
    return problem;
}

const [admin, service, buyer] = [client("ADMIN"), client("SERVICE"), client("BUYER")];
const bookings = new BookingsApi(buyer);

const event = await new EventsApi(admin).createEvent({
    createEvent: {
        name: "Concert",
        venue: "Hall",
        startsAt: new Date("2099-01-01T20:00:00Z"),
        capacity: 3,
        price: { amount: 4500, currency: "EUR" },
    },
});
assert.equal(event.status, "onSale");
assert.equal(event.available, 3);
assert.equal(event.startsAt.getUTCFullYear(), 2099);

const book = (createBooking: CreateBooking, idempotencyKey: string): Promise<Booking> =>
    bookings.createBooking({ createBooking, idempotencyKey });

const two = { eventId: event.id, ticketQuantity: 2 };
const booking = await book(two, "first");
assert.equal(booking.status, BookingStatus.Pending);
assert.deepEqual(booking.total, { amount: 9000, currency: "EUR" });
assert(booking.holdExpiresAt > booking.createdAt);
assert.equal((await book(two, "first")).id, booking.id, "a repeated request gives the same booking");

const few = await refusal(book(two, "second"), ProblemCode.InsufficientAvailability);
assert.deepEqual([few.status, few.requested, few.available], [409, 2, 1]);

const [ticketType] = event.ticketTypes;
assert(ticketType);
const last = { eventId: event.id, items: [{ ticketTypeId: ticketType.id, quantity: 1 }] };
const other = await book(last, "third");
assert.equal((await refusal(book(last, "fourth"), ProblemCode.SoldOut)).available, 0);
const invalid = await refusal(book({ ...last, ticketQuantity: 1 }, "fifth"), ProblemCode.ValidationFailed);
assert.match(invalid.errors?.[0]?.detail ?? "", /not both/);
const wrongTotal = { eventId: event.id, ticketQuantity: 1, expectedTotal: { amount: 1, currency: "EUR" } };
assert.equal((await refusal(book(wrongTotal, "sixth"), ProblemCode.AmountMismatch)).expected?.amount, 4500);

const payment = { id: booking.id, confirmBooking: { paymentTransactionId: "tx-1", amount: booking.total } };
const confirmed = await new BookingsApi(service).confirmBooking(payment);
assert.equal(confirmed.status, BookingStatus.Confirmed);
assert.equal(confirmed.paymentStatus, PaymentStatus.Paid);
assert(confirmed.confirmedAt instanceof Date);
await refusal(bookings.confirmBooking(payment), ProblemCode.Forbidden);

const cancelled = await bookings.cancelBooking({ id: booking.id, cancelBooking: { reason: "ill" } });
assert.equal(cancelled.status, BookingStatus.Cancelled);
assert.equal(cancelled.paymentStatus, PaymentStatus.RefundRequested);
assert.equal(cancelled.cancellationReason, "ill");
const again = await refusal(bookings.cancelBooking({ id: booking.id }), ProblemCode.InvalidState);
assert.equal(again.bookingStatus, BookingStatus.Cancelled);
assert.equal((await bookings.cancelBooking({ id: other.id })).paymentStatus, PaymentStatus.Failed);

const refunds = new RefundsApi(service);
const [refund, ...more] = (await refunds.listRefunds({ status: RefundStatus.Requested })).data;
assert(refund && more.length === 0);
assert.equal(refund.bookingId, booking.id);
assert.deepEqual(refund.amount, booking.total);
assert.equal(refund.reason, "booking_cancelled");
const settleRefund = { outcome: SettlementOutcome.Succeeded, providerReference: "re-1" };
assert.equal((await refunds.settleRefund({ id: refund.id, settleRefund })).status, RefundStatus.Succeeded);

const page = await bookings.listBookings({ limit: 1 });
assert.equal(page.nextCursor, page.data[0]?.id);
const rest = await bookings.listBookings({ limit: 1, after: page.nextCursor ?? "" });
assert.deepEqual([rest.data[0]?.id, rest.nextCursor], [booking.id, null]);

assert.equal((await new EventsApi(buyer).getAvailability({ id: event.id })).available, 3);
const entries = (await new EventsApi(admin).listLedger({ id: event.id })).data;
assert.equal(entries[0]?.type, EntryKind.EventCreated);

const edit = (name: string) =>
    new EventsApi(admin).updateEvent({ id: event.id, updateEvent: { name }, ifMatch: '"1"' });
assert.equal((await edit("Gala")).version, 2);
assert.equal((await refusal(edit("Ball"), ProblemCode.VersionMismatch)).status, 412);

console.log(JSON.stringify({ booking: booking.id, refund: refund.id }));
