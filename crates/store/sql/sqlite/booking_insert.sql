-- Inserts a booking. A duplicate id violates the primary key.
INSERT INTO bookings ({booking}) VALUES ({booking ?1})
