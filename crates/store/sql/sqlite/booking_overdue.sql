-- The oldest overdue holds of an event after a given one: any (?5 and ?6 unset), with a ticket type, or of
-- a user. Served by bookings_held.
SELECT id, event_id, user_id, status, version, last_seq, items, currency, total, hold_expires_at, payment_method,
       transaction_id, confirmed_at, cancelled_at, cancellation_reason, refunded, expired_at, created_at, updated_at
FROM bookings
WHERE status = 'pending' AND event_id = ?1 AND hold_expires_at <= ?2 AND (hold_expires_at, id) > (?3, ?4)
  AND (?5 IS NULL OR EXISTS (SELECT 1 FROM json_each(bookings.items) item WHERE item.value ->> 0 = ?5))
  AND (?6 IS NULL OR user_id = ?6)
ORDER BY hold_expires_at, id LIMIT ?7
