-- The oldest overdue holds of an event after a given one: all ($5 is NULL), or those with a ticket type; with
-- the number of tickets that the user of each holds in all. Served by bookings_held. The ticket type is
-- searched as text: a JSON function would raise an error at corrupt items, and so fail every order. A name
-- cannot be mistaken for an item, because its quotes are escaped.
SELECT {b.booking},
       (SELECT u.tickets FROM user_limits u WHERE u.event_id = b.event_id AND u.user_id = b.user_id)
FROM bookings b
WHERE b.status = 'pending' AND b.event_id = $1 AND b.hold_expires_at <= $2
  AND (b.hold_expires_at, b.id) > ($3::bigint, $4::uuid)
  AND ($5::text IS NULL OR strpos(b.items, '["' || $5 || '",') > 0)
ORDER BY b.hold_expires_at, b.id LIMIT $6
