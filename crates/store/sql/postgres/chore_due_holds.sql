-- Unpaid holds whose time has passed, by the caller's clock and by ours, event by event, oldest first, after a
-- given one. Walks the events (not their bookings) and asks bookings_held about those that have pending ones.
SELECT b.event_id, b.hold_expires_at, b.id
FROM events e JOIN bookings b ON b.event_id = e.id
WHERE e.pending > 0 AND e.id >= $2 AND b.status = 'pending'
  AND b.hold_expires_at <= least($1, (extract(epoch FROM statement_timestamp()) * 1000000)::bigint)
  AND (b.event_id, b.hold_expires_at, b.id) > ($2, $3::bigint, $4::uuid)
ORDER BY b.event_id, b.hold_expires_at, b.id LIMIT $5
