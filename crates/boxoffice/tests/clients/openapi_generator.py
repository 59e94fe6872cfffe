"""Books with the client that OpenAPI Generator makes for Python.

Prints the ids of the booking and of its refund.
"""

import datetime
import json
import os
from collections.abc import Callable

from boxoffice_api import (
    ApiClient,
    ApiException,
    Booking,
    BookingsApi,
    BookingStatus,
    CancelBooking,
    Configuration,
    ConfirmBooking,
    CreateBooking,
    CreateEvent,
    EntryKind,
    EventsApi,
    Money,
    NewItem,
    PaymentStatus,
    Problem,
    ProblemCode,
    RefundsApi,
    RefundStatus,
    SettlementOutcome,
    SettleRefund,
    UpdateEvent,
)


def client(role: str) -> ApiClient:
    """A client with the token of a role."""
    return ApiClient(Configuration(host=os.environ["BASE_URL"], access_token=os.environ[f"TOKEN_{role}"]))


def refusal(call: Callable[[], object], code: ProblemCode) -> Problem:
    try:
        response = call()
    except ApiException as refused:
        problem = refused.data
        assert isinstance(problem, Problem), refused
        assert problem.code == code and problem.status == refused.status, problem
        return problem
    raise AssertionError(response)


admin, service, buyer = client("ADMIN"), client("SERVICE"), client("BUYER")
bookings = BookingsApi(buyer)

event = EventsApi(admin).create_event(
    CreateEvent(
        name="Concert",
        venue="Hall",
        starts_at=datetime.datetime(2099, 1, 1, 20, tzinfo=datetime.timezone.utc),
        capacity=3,
        price=Money(amount=4500, currency="EUR"),
    )
)
assert event.status == "onSale" and event.available == 3, event
assert event.starts_at.year == 2099, event


def book(body: CreateBooking, key: str) -> Booking:
    return bookings.create_booking(body, idempotency_key=key)


two = CreateBooking(event_id=event.id, ticket_quantity=2)
booking = book(two, "first")
assert booking.status is BookingStatus.PENDING, booking
assert booking.total == Money(amount=9000, currency="EUR"), booking
assert booking.hold_expires_at > booking.created_at, booking
assert book(two, "first").id == booking.id, "a repeated request gives the same booking"

few = refusal(lambda: book(two, "second"), ProblemCode.INSUFFICIENT_AVAILABILITY)
assert few.status == 409 and few.requested == 2 and few.available == 1, few

last = CreateBooking(event_id=event.id, items=[NewItem(ticket_type_id=event.ticket_types[0].id, quantity=1)])
other = book(last, "third")
sold_out = refusal(lambda: book(last, "fourth"), ProblemCode.SOLD_OUT)
assert sold_out.available == 0 and sold_out.request_id, sold_out
both = CreateBooking(event_id=event.id, ticket_quantity=1, items=last.items)
invalid = refusal(lambda: book(both, "fifth"), ProblemCode.VALIDATION_FAILED)
assert invalid.errors and "not both" in invalid.errors[0].detail, invalid
wrong_total = CreateBooking(
    event_id=event.id, ticket_quantity=1, expected_total=Money(amount=1, currency="EUR")
)
mismatch = refusal(lambda: book(wrong_total, "sixth"), ProblemCode.AMOUNT_MISMATCH)
assert mismatch.expected and mismatch.expected.amount == 4500, mismatch

payment = ConfirmBooking(payment_transaction_id="tx-1", amount=booking.total)
confirmed = BookingsApi(service).confirm_booking(booking.id, payment)
assert confirmed.status is BookingStatus.CONFIRMED, confirmed
assert confirmed.payment_status is PaymentStatus.PAID, confirmed
assert isinstance(confirmed.confirmed_at, datetime.datetime), confirmed
refusal(lambda: bookings.confirm_booking(booking.id, payment), ProblemCode.FORBIDDEN)

cancelled = bookings.cancel_booking(booking.id, cancel_booking=CancelBooking(reason="ill"))
assert cancelled.status is BookingStatus.CANCELLED, cancelled
assert cancelled.payment_status is PaymentStatus.REFUNDREQUESTED, cancelled
assert cancelled.cancellation_reason == "ill", cancelled
again = refusal(lambda: bookings.cancel_booking(booking.id), ProblemCode.INVALID_STATE)
assert again.booking_status is BookingStatus.CANCELLED, again
assert bookings.cancel_booking(other.id).payment_status is PaymentStatus.FAILED

(refund,) = RefundsApi(service).list_refunds(status=RefundStatus.REQUESTED).data
assert refund.booking_id == booking.id and refund.amount == booking.total, refund
assert refund.reason == "booking_cancelled", refund
outcome = SettleRefund(outcome=SettlementOutcome.SUCCEEDED, provider_reference="re-1")
settled = RefundsApi(service).settle_refund(refund.id, outcome)
assert settled.status is RefundStatus.SUCCEEDED, settled

page = bookings.list_bookings(limit=1)
assert len(page.data) == 1 and page.next_cursor == page.data[0].id, page
rest = bookings.list_bookings(limit=1, after=page.next_cursor)
assert rest.data[0].id == booking.id and rest.next_cursor is None, rest

left = EventsApi(buyer).get_availability(event.id)
assert left.available == 3 and not left.sold_out, left
entries = EventsApi(admin).list_ledger(event.id).data
assert entries[0].type == EntryKind.EVENT_DOT_CREATED, entries

renamed = EventsApi(admin).update_event(event.id, UpdateEvent(name="Gala"), if_match='"1"')
assert renamed.name == "Gala" and renamed.version == 2, renamed
stale = refusal(
    lambda: EventsApi(admin).update_event(event.id, UpdateEvent(name="Ball"), if_match='"1"'),
    ProblemCode.VERSION_MISMATCH,
)
assert stale.status == 412, stale

print(json.dumps({"booking": booking.id, "refund": refund.id}))
