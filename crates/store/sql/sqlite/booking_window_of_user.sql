-- The last possible row of a filtered page of a user's bookings. Served by bookings_by_user, without reading
-- the rows.
SELECT id FROM bookings WHERE user_id = ?1 AND id < ?2 AND length(id) = 16 ORDER BY id DESC LIMIT 1 OFFSET ?3
