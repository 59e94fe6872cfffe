-- Unpaid holds of all events whose deadline has passed, by the caller's clock and by the server's, oldest
-- first, after a given one. Served by bookings_due.
SELECT event_id, hold_expires_at, id
FROM bookings
WHERE status = 'pending'
  AND hold_expires_at <= least($1, (extract(epoch FROM statement_timestamp()) * 1000000)::bigint)
  AND (hold_expires_at, id) > ($2::bigint, $3::uuid)
ORDER BY hold_expires_at, id LIMIT $4
