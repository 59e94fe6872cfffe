-- All bookings, newest first. Served by the primary key.
SELECT {booking}
FROM bookings WHERE id < $1
ORDER BY id DESC LIMIT $2
