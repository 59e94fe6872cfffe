-- What each user holds of an event by its bookings and ledger, beside the stored count. Sorts, outside of memory.
SELECT coalesce(h.user_id, u.user_id), coalesce(h.tickets, 0)::bigint, u.tickets
FROM (SELECT b.user_id, sum(l.quantity) AS tickets
      FROM ledger l JOIN bookings b ON b.id = l.booking_id AND b.event_id = l.event_id
      WHERE l.event_id = $1 AND l.type = 'booking.created' AND b.status IN ('pending', 'confirmed')
      GROUP BY b.user_id) h
FULL JOIN (SELECT user_id, tickets FROM user_limits WHERE event_id = $1) u ON u.user_id = h.user_id
