-- A user's bookings, newest first. Served by bookings_by_user.
SELECT id, event_id, user_id, status, version, last_seq, items, currency, total, hold_expires_at, payment_method,
       transaction_id, confirmed_at, cancelled_at, cancellation_reason, refunded, expired_at, created_at, updated_at
FROM bookings
WHERE user_id = $1 AND id < $2 AND ($3::uuid IS NULL OR event_id = $3) AND ($4::text IS NULL OR status = $4)
ORDER BY id DESC LIMIT $5
