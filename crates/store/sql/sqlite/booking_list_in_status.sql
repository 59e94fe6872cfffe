-- All bookings in a status, newest first. Served by bookings_by_status.
SELECT {booking}
FROM bookings WHERE status = ?1 AND id < ?2 AND length(id) = 16
ORDER BY id DESC LIMIT ?3
