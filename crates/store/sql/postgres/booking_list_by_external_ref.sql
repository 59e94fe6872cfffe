-- The bookings with an external reference, newest first; only those of one user, of one event and in one
-- status if these are set. At most one for each event. Served by bookings_by_external_ref: the columns are
-- compared as a row, so that no other index provides the order.
SELECT {booking}
FROM bookings
WHERE (external_ref, id) < ($1::text, $2::uuid) AND external_ref >= $1
  AND ($3::text IS NULL OR user_id = $3) AND ($4::uuid IS NULL OR event_id = $4)
  AND ($5::text IS NULL OR status = $5)
ORDER BY external_ref DESC, id DESC LIMIT $6
