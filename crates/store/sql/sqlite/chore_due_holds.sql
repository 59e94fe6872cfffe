-- Unpaid holds of all events whose deadline has passed, oldest first, after a given one. Served by
-- bookings_due, which is forced, because by the conditions alone the planner rates bookings_by_status as
-- equal.
SELECT event_id, hold_expires_at, id
FROM bookings INDEXED BY bookings_due
WHERE status = 'pending' AND hold_expires_at <= ?1 AND (hold_expires_at, id) > (?2, ?3)
  AND length(id) = 16 AND length(event_id) = 16
ORDER BY hold_expires_at, id LIMIT ?4
