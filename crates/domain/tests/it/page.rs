//! The text between the tables of `docs/booking-states.md`.

pub(crate) const OPENING: &str = "\
# Booking states

This page lists the result of every command in every state of a booking. A test runs each cell of these tables
and compares this page with the results, so the page cannot be out of date. To change it, change the rules and
run `UPDATE_DOCS=1 cargo test -p domain`.

```text
                        confirm
  book ───▶ pending ───────────────▶ confirmed
             │   │                    ▲     │
      expire │   │ cancel             │     │ cancel,
             │   │       late confirm,│     │ with a refund
             ▼   │  tickets available │     │
          expired ────────────────────┘     │
                 │                          │
                 ▼                          ▼
                cancelled (no further transitions)
```

";

pub(crate) const COMMANDS: &str = "\
How to read the tables:

- **→ status**: the command succeeds, and the booking (or the refund) now has this status.
- **no change**: the command succeeds and returns the booking (or the refund) unchanged.
- `code`: the command is refused with this problem code. Nothing changes, unless a refund is shown.
- **refund**: one refund is recorded in the same transaction. A refusal returns it in its `refund` member.
- **same refund**: the refusal returns the refund that was recorded earlier. No second refund is created.
- **–**: cannot occur.

A pending booking is *overdue* from `holdExpiresAt` until its tickets are freed. Cancelling an event cancels
its bookings one after the other, so a booking of a cancelled event may still be pending or confirmed for a
short time.

## Book

An order gets all its tickets or none. If tickets are missing, overdue holds are freed first, so an overdue
hold never causes one of the refusals about ticket counts. Earlier bookings of the same buyer have no effect,
except on the limit per user.

";

pub(crate) const CONFIRM: &str = "\
## Confirm, with a new transaction

A captured payment either buys the tickets or is recorded as a refund; a refund is missing only if the amount
is wrong (see below). A pending booking can be paid even if it is overdue, sales are paused or the event has
started. If it has expired, its tickets are taken again, provided they are still available and the user's
limit allows it.

If the request contains an `amount` that is not the booking's total, the response is `amount_mismatch` in
every state, and nothing is recorded: the caller decides what to do with the payment.

";

pub(crate) const CONFIRM_SAME: &str = "\
## Confirm, with the transaction that paid the booking

Payment webhooks are delivered more than once. While the booking is confirmed, a repeated confirmation gets
the same response as the first one. Once the booking is cancelled, the transaction is refunded and stays
refunded.

";

pub(crate) const CONFIRM_REFUNDED: &str = "\
## Confirm, with a transaction that is already refunded

A refunded transaction is never accepted again, even if tickets are available again. It gets the refusal of
the first attempt (`invalid_state` if it was accepted first and refunded by a cancellation) with the same
refund, independently of later changes to the booking. The only exception: once the event is cancelled,
`invalid_state` becomes `event_cancelled`. A pending booking has such a transaction only if the payment
arrived between the cancellation of the event and that of the booking.

";

pub(crate) const CANCEL: &str = "\
## Cancel, by the user who booked

A user can always cancel an unpaid booking. A paid booking can be cancelled until `cancelCutoffSeconds` before
the start of the event, inclusive.

";

pub(crate) const CANCEL_SERVICE: &str = "\
## Cancel, by a service or an admin

The same commands without the cut-off. The cancellation of an event applies this to each of its bookings.

";

pub(crate) const CANCEL_OTHER_USER: &str = "\
## Cancel, by another user

The response does not reveal whether the booking exists.

";

pub(crate) const CLEAN_UP: &str = "\
## Expire, by the sweeper

Frees the tickets of overdue bookings and of no others. No cut-off, pause or limit prevents it.

";

pub(crate) const REFUNDS: &str = "\
## Sources of refunds

A refund belongs to one captured payment, that is, to one booking and one transaction; there is at most one
refund per payment. A transaction may pay for several bookings; each of them has its own refund. The amount of
a refund is the booking's total. Refunding a late payment does not change the booking's status.

";

pub(crate) const SETTLE: &str = "\
## Settle a refund

A trusted service reports whether the money was paid out. Reporting the same outcome again has no effect: the
first `providerReference` and `settledAt` remain. A failed refund is still owed and may succeed later; a
refund that was paid out cannot fail afterwards. A settlement moves no tickets, changes no booking status, and
does not depend on the state of the booking or its event. A repeated confirmation with the refunded
transaction is still refused and returns the refund in its current state.

";

pub(crate) const SETTLE_BOOKING: &str = "\
The booking's `paymentStatus` after a settlement: it reflects only the refund of the payment that bought the
booking, and only once that refund has succeeded.

";
