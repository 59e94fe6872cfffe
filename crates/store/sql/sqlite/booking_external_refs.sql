-- The external reference, if a booking of the event has it. Served by booking_external_ref.
SELECT {booking_external_ref} FROM bookings WHERE event_id = ?1 AND external_ref = ?2
