-- The overdue holds of a user at an event, among the user's newest bookings; with the number of tickets that
-- the user holds in all. Served by bookings_by_user, which is forced, because by the conditions alone the
-- planner rates bookings_by_event as equal.
SELECT {b.booking},
       (SELECT u.tickets FROM user_limits u WHERE u.event_id = b.event_id AND u.user_id = b.user_id)
FROM bookings b INDEXED BY bookings_by_user
WHERE b.user_id = ?3 AND b.status = 'pending' AND b.event_id = ?1 AND b.hold_expires_at <= ?2
  AND length(b.id) = 16
  AND b.id >= coalesce(
      (SELECT id FROM bookings WHERE user_id = ?3 ORDER BY id DESC LIMIT 1 OFFSET ?4 - 1), X'')
ORDER BY b.id DESC
