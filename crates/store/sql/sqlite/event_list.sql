-- A page of events, newest first. Served by the primary keys.
SELECT {e.event}, {d.event_details}
FROM events e LEFT JOIN event_details d ON d.event_id = e.id
WHERE e.id < ?1 AND length(e.id) = 16 ORDER BY e.id DESC LIMIT ?2
