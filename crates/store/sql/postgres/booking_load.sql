-- Bookings by their ids. Served by the primary key. Not locked themselves: a transaction that changes a
-- booking has locked its event.
SELECT {booking}
FROM bookings WHERE id = ANY ($1::uuid[])
