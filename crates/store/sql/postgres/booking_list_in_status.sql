-- All bookings in a status, newest first. Served by bookings_by_status: the columns are compared as a row, so
-- that no other index provides the order, whatever the statistics say.
SELECT id, event_id, user_id, status, version, last_seq, items, currency, total, hold_expires_at,
       payment_method, transaction_id, confirmed_at, cancelled_at, cancellation_reason, refunded, expired_at,
       created_at, updated_at
FROM bookings WHERE (status, id) < ($1::text, $2::uuid) AND status >= $1
ORDER BY status DESC, id DESC LIMIT $3
