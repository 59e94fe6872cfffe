-- The bookings of an event, newest first. Served by bookings_by_event: reads a page of each status and
-- returns the newest of these. The columns are compared as a row, so that no other index provides the order.
SELECT {b.booking}
FROM (SELECT id FROM (
    (SELECT id FROM bookings
     WHERE (event_id, status, id) < ($1::uuid, 'pending', $2::uuid)
       AND (event_id, status) >= ($1, 'pending')
     ORDER BY event_id DESC, status DESC, id DESC LIMIT $3)
    UNION ALL
    (SELECT id FROM bookings
     WHERE (event_id, status, id) < ($1::uuid, 'confirmed', $2::uuid)
       AND (event_id, status) >= ($1, 'confirmed')
     ORDER BY event_id DESC, status DESC, id DESC LIMIT $3)
    UNION ALL
    (SELECT id FROM bookings
     WHERE (event_id, status, id) < ($1::uuid, 'cancelled', $2::uuid)
       AND (event_id, status) >= ($1, 'cancelled')
     ORDER BY event_id DESC, status DESC, id DESC LIMIT $3)
    UNION ALL
    (SELECT id FROM bookings
     WHERE (event_id, status, id) < ($1::uuid, 'expired', $2::uuid)
       AND (event_id, status) >= ($1, 'expired')
     ORDER BY event_id DESC, status DESC, id DESC LIMIT $3)) each_status
    ORDER BY id DESC LIMIT $3) page
JOIN bookings b ON b.id = page.id
ORDER BY b.id DESC
