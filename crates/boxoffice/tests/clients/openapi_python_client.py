"""Books with the client that openapi-python-client generates.

Prints the ids of the booking and of its refund.
"""

import datetime
import json
import os
from typing import TypeVar

from boxoffice_client import AuthenticatedClient
from boxoffice_client.api.bookings import cancel_booking, confirm_booking, create_booking, list_bookings
from boxoffice_client.api.events import create_event, get_availability, list_ledger, update_event
from boxoffice_client.api.refunds import list_refunds, settle_refund
from boxoffice_client.models import (
    Booking,
    BookingStatus,
    CancelBooking,
    ConfirmBooking,
    CreateBooking,
    CreateEvent,
    EntryKind,
    Money,
    NewItem,
    PaymentStatus,
    Problem,
    ProblemCode,
    RefundStatus,
    SettlementOutcome,
    SettleRefund,
    UpdateEvent,
)
from boxoffice_client.types import Unset

T = TypeVar("T")


def client(role: str) -> AuthenticatedClient:
    """A client with the token of a role."""
    return AuthenticatedClient(
        base_url=os.environ["BASE_URL"],
        token=os.environ[f"TOKEN_{role}"],
        raise_on_unexpected_status=True,
    )


def success(response: T | Problem | None) -> T:
    assert response is not None and not isinstance(response, Problem), response
    return response


def refusal(response: object, code: ProblemCode) -> Problem:
    assert isinstance(response, Problem), response
    assert response.code == code, response
    return response


admin, service, buyer = client("ADMIN"), client("SERVICE"), client("BUYER")

event = success(
    create_event.sync(
        client=admin,
        body=CreateEvent(
            name="Concert",
            venue="Hall",
            starts_at=datetime.datetime(2099, 1, 1, 20, tzinfo=datetime.timezone.utc),
            capacity=3,
            price=Money(amount=4500, currency="EUR"),
        ),
    )
)
assert event.status == "onSale" and event.available == 3, event
assert event.starts_at.year == 2099, event


def book(body: CreateBooking, key: str) -> Booking | Problem | None:
    return create_booking.sync(client=buyer, body=body, idempotency_key=key)


two = CreateBooking(event_id=event.id, ticket_quantity=2)
booking = success(book(two, "first"))
assert booking.status is BookingStatus.PENDING, booking
assert booking.total == Money(amount=9000, currency="EUR"), booking
assert booking.hold_expires_at > booking.created_at, booking
assert success(book(two, "first")).id == booking.id, "a repeated request gives the same booking"

few = refusal(book(two, "second"), ProblemCode.INSUFFICIENT_AVAILABILITY)
assert few.status == 409 and few.requested == 2 and few.available == 1, few

last = CreateBooking(event_id=event.id, items=[NewItem(ticket_type_id=event.ticket_types[0].id, quantity=1)])
other = success(book(last, "third"))
sold_out = refusal(book(last, "fourth"), ProblemCode.SOLD_OUT)
assert sold_out.available == 0 and sold_out.request_id, sold_out
both = CreateBooking(event_id=event.id, ticket_quantity=1, items=last.items)
invalid = refusal(book(both, "fifth"), ProblemCode.VALIDATION_FAILED)
assert not isinstance(invalid.errors, Unset) and "not both" in invalid.errors[0].detail, invalid
wrong_total = CreateBooking(
    event_id=event.id, ticket_quantity=1, expected_total=Money(amount=1, currency="EUR")
)
mismatch = refusal(book(wrong_total, "sixth"), ProblemCode.AMOUNT_MISMATCH)
assert not isinstance(mismatch.expected, Unset) and mismatch.expected.amount == 4500, mismatch

payment = ConfirmBooking(payment_transaction_id="tx-1", amount=booking.total)
confirmed = success(confirm_booking.sync(booking.id, client=service, body=payment))
assert confirmed.status is BookingStatus.CONFIRMED, confirmed
assert confirmed.payment_status is PaymentStatus.PAID, confirmed
assert isinstance(confirmed.confirmed_at, datetime.datetime), confirmed
refusal(confirm_booking.sync(booking.id, client=buyer, body=payment), ProblemCode.FORBIDDEN)

cancelled = success(cancel_booking.sync(booking.id, client=buyer, body=CancelBooking(reason="ill")))
assert cancelled.status is BookingStatus.CANCELLED, cancelled
assert cancelled.payment_status is PaymentStatus.REFUNDREQUESTED, cancelled
assert cancelled.cancellation_reason == "ill", cancelled
again = refusal(cancel_booking.sync(booking.id, client=buyer), ProblemCode.INVALID_STATE)
assert again.booking_status is BookingStatus.CANCELLED, again
assert success(cancel_booking.sync(other.id, client=buyer)).payment_status is PaymentStatus.FAILED

(refund,) = success(list_refunds.sync(client=service, status=RefundStatus.REQUESTED)).data
assert refund.booking_id == booking.id and refund.amount == booking.total, refund
assert refund.reason == "booking_cancelled", refund
outcome = SettleRefund(outcome=SettlementOutcome.SUCCEEDED, provider_reference="re-1")
settled = success(settle_refund.sync(refund.id, client=service, body=outcome))
assert settled.status is RefundStatus.SUCCEEDED, settled

page = success(list_bookings.sync(client=buyer, limit=1))
assert len(page.data) == 1 and page.next_cursor == page.data[0].id, page
rest = success(list_bookings.sync(client=buyer, limit=1, after=page.next_cursor))
assert rest.data[0].id == booking.id and rest.next_cursor is None, rest

left = success(get_availability.sync(event.id, client=buyer))
assert left.available == 3 and not left.sold_out, left
entries = success(list_ledger.sync(event.id, client=admin)).data
assert entries[0].type_ == EntryKind.EVENT_CREATED, entries

renamed = success(update_event.sync(event.id, client=admin, body=UpdateEvent(name="Gala"), if_match='"1"'))
assert renamed.name == "Gala" and renamed.version == 2, renamed
stale = update_event.sync(event.id, client=admin, body=UpdateEvent(name="Ball"), if_match='"1"')
assert refusal(stale, ProblemCode.VERSION_MISMATCH).status == 412, stale

print(json.dumps({"booking": booking.id, "refund": refund.id}))
