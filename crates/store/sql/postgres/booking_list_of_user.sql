-- The bookings of a user down to a given id, newest first; only those of one event and in one status if these
-- are set. Served by bookings_by_user: the columns are compared as a row, so that no other index provides the
-- order.
SELECT {booking}
FROM bookings
WHERE (user_id, id) < ($1::text, $2::uuid) AND (user_id, id) >= ($1, $3::uuid)
  AND ($4::uuid IS NULL OR event_id = $4) AND ($5::text IS NULL OR status = $5)
ORDER BY user_id DESC, id DESC LIMIT $6
