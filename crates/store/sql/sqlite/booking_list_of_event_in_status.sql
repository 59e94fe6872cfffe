-- The bookings of an event in a status, newest first. Served by bookings_by_event.
SELECT {booking}
FROM bookings WHERE event_id = ?1 AND status = ?2 AND id < ?3 AND length(id) = 16
ORDER BY id DESC LIMIT ?4
