//! What stands between the tables of `docs/booking-states.md`.

pub(crate) const OPENING: &str = "\
# The states of a booking

What happens to a booking, and what you hear, for every command in every state. A test runs each cell
of these tables and compares this page with the outcome, so the page cannot be out of date. To change it,
change the rules and run `UPDATE_DOCS=1 cargo test -p domain`.

```text
                        confirm
  book ───▶ pending ───────────────▶ confirmed
             │   │                    ▲     │
    clean-up │   │ cancel             │     │ cancel,
             │   │       late confirm,│     │ with a refund
             ▼   │     tickets there  │     │
          expired ────────────────────┘     │
                 │                          │
                 ▼                          ▼
                cancelled, and never anything else
```

";

pub(crate) const COMMANDS: &str = "\
How to read the tables:

- **→ status**: the command succeeds and the booking (or the refund) now has that status.
- **no change**: the command succeeds again, and the answer is the booking as it already was.
- `code`: refused with that problem code; nothing changed.
- **refund**: one refund is recorded in the same transaction. A refusal names it in its `refund` member.
- **same refund**: the refusal names the refund that was recorded earlier; no second one is made.
- **–**: cannot come about.

*Overdue* is a pending booking from `holdExpiresAt` on, as long as nobody has freed it. A booking on a
cancelled event may still be pending or confirmed for a moment: the organiser's cancellation reaches every
booking in turn.

## Book

A booking takes all its tickets or none. Overdue bookings that stand in the way are freed first, so none of
the refusals about numbers is ever caused by one. Earlier bookings of the same buyer make no difference,
except to the limit per user.

";

pub(crate) const CONFIRM: &str = "\
## Confirm, with a new transaction

A captured payment either buys the tickets or is given back; it is never just refused. A hold that is still
pending can be paid even if it is overdue, sales are paused or the event has begun. If it has expired, its
tickets are taken again if they are still there and the user's limit allows.

If the request carries an `amount` that is not the booking's total, the answer is `amount_mismatch`
in every state, and nothing is recorded: the caller decides what becomes of the payment.

";

pub(crate) const CONFIRM_SAME: &str = "\
## Confirm, with the transaction that paid the booking

Payment webhooks repeat. While the booking is confirmed, a repetition is answered as the first one was.
Once the booking is cancelled, the transaction is refunded and stays so.

";

pub(crate) const CONFIRM_REFUNDED: &str = "\
## Confirm, with a transaction that is already refunded

A refunded transaction is never accepted again, even if tickets have come back since. It hears the refusal it
heard the first time (`invalid_state` if it was accepted first and refunded by a cancellation), with the same
refund, whatever became of the booking; only `invalid_state` gives way to `event_cancelled` once the event is
cancelled. A pending booking has such a transaction only if the payment came between the cancellation of the
event and that of the booking.

";

pub(crate) const CANCEL: &str = "\
## Cancel, by the user who booked

Unpaid bookings can always be given up. Paid ones only until `cancelCutoffSeconds` before the start
(that moment included).

";

pub(crate) const CANCEL_SERVICE: &str = "\
## Cancel, by a service or an admin

The same without a cut-off. The organiser's cancellation of an event does this to each of its bookings.

";

pub(crate) const CANCEL_STRANGER: &str = "\
## Cancel, by another user

Whether the booking exists is not theirs to know.

";

pub(crate) const CLEAN_UP: &str = "\
## Clean-up

Frees what is overdue, and only that. No cut-off, pause or limit stops it.

";

pub(crate) const REFUNDS: &str = "\
## Where refunds come from

A refund belongs to one captured payment, that is to one booking and one transaction, and there is at most
one for each. A transaction may pay several bookings; each then has its own refund. What is given back is
the booking's total. The booking does not change its status because a late payment is refunded.

";

pub(crate) const SETTLE: &str = "\
## Settle a refund

A trusted service reports whether the money was paid out. The same outcome again is one settlement: the first
`providerReference` and `settledAt` stay. A failed refund is still owed and may succeed later; what was paid
out stays so. Settling moves no ticket and changes no booking's status, and nothing that became of the booking
or its event stands in its way. The refused transaction still hears its refusal, with the refund as it now is.

";

pub(crate) const SETTLE_BOOKING: &str = "\
What the booking's `paymentStatus` then is: only the refund of the payment that had bought the booking shows
in it, and only once it has succeeded.

";
