-- Bookings by their ids. Served by the primary key. Not locked themselves: a transaction that changes a
-- booking has locked its event.
SELECT id, event_id, user_id, status, version, last_seq, items, currency, total, hold_expires_at,
       payment_method, transaction_id, confirmed_at, cancelled_at, cancellation_reason, refunded, expired_at,
       created_at, updated_at
FROM bookings WHERE id = ANY ($1::uuid[])
