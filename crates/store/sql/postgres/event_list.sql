-- A page of events, newest first, one row per ticket type. Served by the primary keys.
SELECT {e.event}, {d.event_details}, {t.ticket_type}
FROM (SELECT * FROM events WHERE id < $1 ORDER BY id DESC LIMIT $2) e
LEFT JOIN event_details d ON d.event_id = e.id
LEFT JOIN ticket_types t ON t.event_id = e.id
ORDER BY e.id DESC, t.place
