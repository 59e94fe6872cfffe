-- Events by their ids, one row per ticket type. Served by the primary keys.
SELECT {e.event}, {d.event_details}, {t.ticket_type}
FROM events e
LEFT JOIN event_details d ON d.event_id = e.id
LEFT JOIN ticket_types t ON t.event_id = e.id
WHERE e.id = ANY ($1::uuid[])
ORDER BY e.id, t.place
