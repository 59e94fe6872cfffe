-- The bookings of an event in a status, newest first. Served by bookings_by_event: the columns are compared
-- as a row, so that no other index provides the order.
SELECT {booking}
FROM bookings
WHERE (event_id, status, id) < ($1::uuid, $2::text, $3::uuid) AND (event_id, status) >= ($1, $2)
ORDER BY event_id DESC, status DESC, id DESC LIMIT $4
