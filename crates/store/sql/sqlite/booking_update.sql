-- Updates a booking. Guarded by the version that was loaded: no other transaction has changed it since.
UPDATE bookings SET {booking_state = ?3} WHERE id = ?1 AND {guard version-check: version = ?2}
