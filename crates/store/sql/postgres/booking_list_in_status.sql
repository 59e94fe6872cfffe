-- All bookings in a status, newest first. Served by bookings_by_status: the columns are compared as a row, so
-- that no other index provides the order, whatever the statistics say.
SELECT {booking}
FROM bookings WHERE (status, id) < ($1::text, $2::uuid) AND status >= $1
ORDER BY status DESC, id DESC LIMIT $3
