-- The tickets that each user holds of an event according to the bookings and the ledger, with the stored
-- count; then the users with a stored count who hold none. Sorts on disk. Served by the primary keys and
-- bookings_by_user.
SELECT h.user_id, h.tickets, u.tickets
FROM (SELECT b.user_id, sum(l.quantity) AS tickets
      FROM ledger l JOIN bookings b ON b.id = l.booking_id AND b.event_id = l.event_id
      WHERE l.event_id = ?1 AND l.type = 'booking.created' AND b.status IN ('pending', 'confirmed')
      GROUP BY b.user_id) h
LEFT JOIN user_limits u ON u.event_id = ?1 AND u.user_id = h.user_id
UNION ALL
SELECT u.user_id, 0, u.tickets FROM user_limits u
WHERE u.event_id = ?1 AND u.tickets > 0 AND NOT EXISTS (
    SELECT 1 FROM bookings b
    WHERE b.user_id = u.user_id AND b.event_id = u.event_id AND b.status IN ('pending', 'confirmed'))
