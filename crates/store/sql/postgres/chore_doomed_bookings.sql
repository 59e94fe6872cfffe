-- Live bookings of cancelled events in the order of their creation, event by event, after a given one. Walks
-- the events (not their bookings) and, of the cancelled ones that have live bookings, the ledger by its key.
SELECT l.event_id, l.seq, l.booking_id
FROM events e
JOIN event_details d ON d.event_id = e.id
JOIN ledger l ON l.event_id = e.id
JOIN bookings b ON b.id = l.booking_id
WHERE e.id >= $1 AND d.status = 'cancelled' AND e.held + e.sold > 0
  AND (l.event_id, l.seq) > ($1, $2::bigint) AND l.type = 'booking.created'
  AND b.status IN ('pending', 'confirmed')
ORDER BY l.event_id, l.seq LIMIT $3
