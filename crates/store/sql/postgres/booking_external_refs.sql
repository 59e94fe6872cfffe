-- Those external references that a booking of the event has. Served by booking_external_ref.
SELECT {b.booking_external_ref}
FROM unnest({booking_external_ref $1}) AS n ({booking_external_ref})
JOIN bookings b ON b.event_id = n.event_id AND b.external_ref = n.external_ref
