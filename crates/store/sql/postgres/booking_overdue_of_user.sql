-- The overdue holds of a user at an event, among the user's newest bookings; with the number of tickets that
-- the user holds in all. Served by bookings_by_user.
SELECT {b.booking},
       (SELECT u.tickets FROM user_limits u WHERE u.event_id = b.event_id AND u.user_id = b.user_id)
FROM (SELECT * FROM bookings
      WHERE (user_id, id) <= ($3::text, 'ffffffff-ffff-ffff-ffff-ffffffffffff') AND user_id >= $3
      ORDER BY user_id DESC, id DESC LIMIT $4) b
WHERE b.status = 'pending' AND b.event_id = $1 AND b.hold_expires_at <= $2
