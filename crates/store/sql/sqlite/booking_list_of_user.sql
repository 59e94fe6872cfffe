-- The bookings of a user down to a given id, newest first; only those of one event and in one status if these
-- are set. Served by bookings_by_user.
SELECT {booking}
FROM bookings
WHERE user_id = ?1 AND id < ?2 AND id >= ?3 AND length(id) = 16
  AND (?4 IS NULL OR event_id = ?4) AND (?5 IS NULL OR status = ?5)
ORDER BY id DESC LIMIT ?6
