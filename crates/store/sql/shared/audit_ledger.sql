-- The whole ledger of an event, with the booking's row beside the entry that created it. Served by the
-- primary keys.
SELECT {l.ledger}, {b.booking}
FROM ledger l LEFT JOIN bookings b ON b.id = l.booking_id AND l.type = 'booking.created'
WHERE l.event_id = ?1 ORDER BY l.seq
