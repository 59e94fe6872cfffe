-- The ledger of an event after a given entry, oldest first, with the current rows of the bookings. Served by
-- the primary keys.
SELECT l.event_id, l.seq, l.type, l.booking_id, l.refund_id, l.lines, l.quantity, l.from_status, l.to_status,
       l.available_after, l.previous_seq, l.actor, l.request_id, l.at, l.trace,
       b.id, b.event_id, b.user_id, b.status, b.version, b.last_seq, b.items, b.currency, b.total,
       b.hold_expires_at, b.payment_method, b.transaction_id, b.confirmed_at, b.cancelled_at,
       b.cancellation_reason, b.refunded, b.expired_at, b.created_at, b.updated_at
FROM ledger l LEFT JOIN bookings b ON b.id = l.booking_id
WHERE l.event_id = ?1 AND l.seq > ?2 ORDER BY l.seq LIMIT ?3
