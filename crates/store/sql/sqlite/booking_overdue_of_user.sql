-- The overdue holds of a user at an event, among the user's newest bookings. Served by bookings_by_user,
-- which is forced, because by the conditions alone the planner rates bookings_by_event as equal.
SELECT id, event_id, user_id, status, version, last_seq, items, currency, total, hold_expires_at,
       payment_method, transaction_id, confirmed_at, cancelled_at, cancellation_reason, refunded, expired_at,
       created_at, updated_at
FROM bookings INDEXED BY bookings_by_user
WHERE user_id = ?3 AND status = 'pending' AND event_id = ?1 AND hold_expires_at <= ?2 AND length(id) = 16
  AND id >= coalesce((SELECT id FROM bookings WHERE user_id = ?3 ORDER BY id DESC LIMIT 1 OFFSET ?4), X'')
ORDER BY id DESC
