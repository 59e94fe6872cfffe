-- All bookings in a status, newest first. Served by bookings_by_status.
SELECT id, event_id, user_id, status, version, last_seq, items, currency, total, hold_expires_at,
       payment_method, transaction_id, confirmed_at, cancelled_at, cancellation_reason, refunded, expired_at,
       created_at, updated_at
FROM bookings WHERE status = ?1 AND id < ?2 AND length(id) = 16
ORDER BY id DESC LIMIT ?3
