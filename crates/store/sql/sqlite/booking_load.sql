-- One booking by its id. Served by the primary key.
SELECT {booking}
FROM bookings WHERE id = ?1
