-- The ledger of an event after a given entry, oldest first, with the current rows of the bookings. Served by
-- the primary keys.
SELECT {l.ledger}, {b.booking}
FROM ledger l LEFT JOIN bookings b ON b.id = l.booking_id
WHERE l.event_id = ?1 AND l.seq > ?2 ORDER BY l.seq LIMIT ?3
