-- The bookings of an event in a status, in the order of their ids, after a given one. Served by
-- bookings_by_event alone.
SELECT id FROM bookings WHERE event_id = ?1 AND status = ?2 AND id > ?3 AND length(id) = 16
ORDER BY id LIMIT ?4
