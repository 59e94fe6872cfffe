-- The bookings of an event, newest first. Served by bookings_by_event: those of each status, merged by id.
SELECT {booking}
FROM bookings
WHERE length(id) = 16 AND id IN (
    SELECT id FROM bookings WHERE event_id = ?1 AND status = 'pending' AND id < ?2
    UNION ALL SELECT id FROM bookings WHERE event_id = ?1 AND status = 'confirmed' AND id < ?2
    UNION ALL SELECT id FROM bookings WHERE event_id = ?1 AND status = 'cancelled' AND id < ?2
    UNION ALL SELECT id FROM bookings WHERE event_id = ?1 AND status = 'expired' AND id < ?2
    ORDER BY id DESC LIMIT ?3)
ORDER BY id DESC
