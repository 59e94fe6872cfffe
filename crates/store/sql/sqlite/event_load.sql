-- The counters and the description of an event. Served by the primary keys.
SELECT {e.event}, {d.event_details}
FROM events e JOIN event_details d ON d.event_id = e.id
WHERE e.id = ?1
