-- The oldest overdue holds of an event after a given one: all (?5 is NULL), or those with a ticket type.
-- Served by bookings_held. The ticket type is searched as text: a JSON function would raise an error at
-- corrupt items, and so fail every order. A name cannot be mistaken for an item, because its quotes are
-- escaped.
SELECT id, event_id, user_id, status, version, last_seq, items, currency, total, hold_expires_at,
       payment_method, transaction_id, confirmed_at, cancelled_at, cancellation_reason, refunded, expired_at,
       created_at, updated_at
FROM bookings
WHERE status = 'pending' AND event_id = ?1 AND hold_expires_at <= ?2 AND (hold_expires_at, id) > (?3, ?4)
  AND length(id) = 16 AND (?5 IS NULL OR instr(items, '["' || ?5 || '",') > 0)
ORDER BY hold_expires_at, id LIMIT ?6
