-- Cancelled events in the order of their ids, after a given one. The second column is true if any
-- counter of the event shows live bookings. Served by event_details_cancelled and the primary key.
SELECT d.event_id, coalesce((SELECT e.held > 0 OR e.sold > 0 OR e.pending > 0 OR e.confirmed > 0
                             FROM events e WHERE e.id = d.event_id), 0)
FROM event_details d
WHERE d.status = 'cancelled' AND d.event_id > ?1 AND length(d.event_id) = 16
ORDER BY d.event_id LIMIT ?2
