-- The last possible row of a filtered page of a user's bookings. Served by bookings_by_user.
SELECT id FROM bookings WHERE (user_id, id) < ($1::text, $2::uuid) AND user_id >= $1
ORDER BY user_id DESC, id DESC LIMIT 1 OFFSET $3
