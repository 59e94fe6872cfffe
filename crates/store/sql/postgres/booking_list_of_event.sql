-- An event's bookings, newest first. Served by the ledger's key: every booking has one first entry.
SELECT b.id, b.event_id, b.user_id, b.status, b.version, b.last_seq, b.items, b.currency, b.total,
       b.hold_expires_at, b.payment_method, b.transaction_id, b.confirmed_at, b.cancelled_at,
       b.cancellation_reason, b.refunded, b.expired_at, b.created_at, b.updated_at, l.seq
FROM ledger l JOIN bookings b ON b.id = l.booking_id
WHERE l.event_id = $1 AND l.seq < $2 AND l.type = 'booking.created' AND ($3::text IS NULL OR b.status = $3)
ORDER BY l.seq DESC LIMIT $4
