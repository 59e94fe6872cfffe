-- The bookings of an event in a status, in the order of their ids, after a given one. Served by
-- bookings_by_event alone: the columns are compared as a row, so that no other index provides the order.
SELECT id FROM bookings
WHERE (event_id, status, id) > ($1::uuid, $2::text, $3::uuid) AND (event_id, status) <= ($1, $2)
ORDER BY event_id, status, id LIMIT $4
