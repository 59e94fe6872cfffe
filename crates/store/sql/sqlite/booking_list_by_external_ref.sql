-- The bookings with an external reference, newest first; only those of one user, of one event and in one
-- status if these are set. At most one for each event. Served by bookings_by_external_ref.
SELECT {booking}
FROM bookings
WHERE external_ref = ?1 AND id < ?2 AND length(id) = 16
  AND (?3 IS NULL OR user_id = ?3) AND (?4 IS NULL OR event_id = ?4) AND (?5 IS NULL OR status = ?5)
ORDER BY id DESC LIMIT ?6
