//! Creates a large event by SQL: creating its bookings one by one would take too long.

use domain::Booking;

/// The id of the first copy, less one: above the ids of the bookings that the tests create one by one.
pub(crate) const FIRST_ID: u64 = 1 << 40;

/// The parts of the statements that differ between the databases.
pub(crate) struct Dialect {
    /// The beginning of a statement that defines a table `n` with a column `i` from 1 to a number.
    pub(crate) series: fn(u32) -> String,
    /// The same table as an item of FROM.
    pub(crate) table: &'static str,
    /// The same item with a tenth of the rows.
    pub(crate) few: &'static str,
    /// An expression that converts a number to an id.
    pub(crate) id: fn(&str) -> String,
    /// The SQL literal of an id.
    pub(crate) literal: fn(&[u8; 16]) -> String,
    /// The literal of false.
    pub(crate) no: &'static str,
}

/// Statements that create `count` copies of a pending booking, each with two ledger entries. The oldest fifth
/// of the copies are expired, then two fifths cancelled, a fifth confirmed and the newest fifth pending and
/// overdue. Half of them belong to one user, `heavy`. Every fifth has a refund: the oldest hundred are
/// requested, the others have succeeded. As many responses as bookings are stored under keys. In addition,
/// there are a tenth as many other events.
pub(crate) fn copies(dialect: &Dialect, template: &Booking, count: u32) -> Vec<String> {
    let Dialect { series, table, few, id, literal, no } = dialect;
    let (with, fifth) = (series(count), count / 5);
    let (template, event) = (literal(template.id.bytes()), literal(template.event_id.bytes()));
    let booking = id(&format!("n.i + {FIRST_ID}"));
    let status = format!(
        "CASE WHEN n.i <= {fifth} THEN 'expired' WHEN n.i <= 3 * {fifth} THEN 'cancelled'
              WHEN n.i <= 4 * {fifth} THEN 'confirmed' ELSE 'pending' END"
    );
    let only = |word: &str, value: &str| format!("CASE WHEN {status} = '{word}' THEN {value} END");
    let [paid, paid_at] = ["'t'", "1"].map(|value| only("confirmed", value));
    let [cancelled_at, expired_at] = ["cancelled", "expired"].map(|word| only(word, "1"));
    let events = series(count / 10);
    let entry = |seq: &str, kind: &str| {
        format!(
            "INSERT INTO ledger (event_id, seq, type, booking_id, refund_id, lines, quantity, from_status,
                    to_status, available_after, previous_seq, actor, request_id, at)
             {with} SELECT event_id, {seq}, '{kind}', {booking}, NULL, lines, quantity, from_status,
                    to_status, available_after, NULL, actor, request_id, at
             FROM ledger, {table} WHERE event_id = {event} AND seq = 2"
        )
    };
    vec![
        format!(
            "INSERT INTO events (id, capacity, held, sold, seq, last_at, pending, confirmed, cancelled,
                    expired, revenue)
             {events} SELECT {booking}, capacity, 0, 0, 1, last_at, 0, 0, 0, 0, revenue
             FROM events e, {few} WHERE e.id = {event}"
        ),
        format!(
            "INSERT INTO event_details (event_id, name, venue, starts_at, currency, hold_seconds,
                    cancel_cutoff_seconds, max_tickets_per_booking, status, version, created_at, updated_at)
             {events} SELECT {booking}, name, venue, starts_at, currency, hold_seconds, cancel_cutoff_seconds,
                    max_tickets_per_booking, status, version, created_at, updated_at
             FROM event_details e, {few} WHERE e.event_id = {event}"
        ),
        format!(
            "INSERT INTO ticket_types (event_id, place, id, name, price, capacity, held, sold)
             {events} SELECT {booking}, 0, {booking}, name, price, capacity, 0, 0
             FROM ticket_types t, {few} WHERE t.event_id = {event}"
        ),
        format!(
            "INSERT INTO bookings (id, event_id, user_id, status, version, last_seq, items, currency, total,
                    hold_expires_at, payment_method, transaction_id, confirmed_at, cancelled_at,
                    cancellation_reason, refunded, expired_at, created_at, updated_at)
             {with} SELECT {booking}, event_id, CASE WHEN n.i % 2 = 0 THEN 'heavy' ELSE 'user-' || n.i END,
                    {status},
                    1, n.i + 2, items, currency, total, 1000000 + n.i, payment_method, {paid}, {paid_at},
                    {cancelled_at}, NULL, {no}, {expired_at}, created_at, updated_at
             FROM bookings b, {table} WHERE b.id = {template}"
        ),
        entry("n.i + 2", "booking.created"),
        entry(&format!("n.i + 2 + {count}"), "booking.expired"),
        format!(
            "INSERT INTO refunds (id, booking_id, event_id, transaction_id, amount, currency, status, reason,
                    provider_reference, created_at, settled_at)
             {with} SELECT {booking}, {booking}, {event}, 't', 1, 'EUR',
                    CASE WHEN n.i <= 500 THEN 'requested' ELSE 'succeeded' END, 'invalid_state', NULL, 1,
                    CASE WHEN n.i <= 500 THEN NULL ELSE 1 END
             FROM {table} WHERE n.i % 5 = 0"
        ),
        format!(
            "INSERT INTO idempotency (scope, key, fingerprint, answer, created_at)
             {with} SELECT 's', 'k' || n.i, f.fingerprint, f.fingerprint, n.i
             FROM {table}, (SELECT fingerprint FROM idempotency LIMIT 1) f"
        ),
    ]
}
