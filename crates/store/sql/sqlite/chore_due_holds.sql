-- Unpaid holds of all events whose time has passed, oldest first, after a given one. Served by bookings_due, which has to
-- be named: by the conditions alone bookings_by_status is as good.
SELECT event_id, hold_expires_at, id
FROM bookings INDEXED BY bookings_due
WHERE status = 'pending' AND hold_expires_at <= ?1 AND (hold_expires_at, id) > (?2, ?3)
  AND length(id) = 16 AND length(event_id) = 16
ORDER BY hold_expires_at, id LIMIT ?4
