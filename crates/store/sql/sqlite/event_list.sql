-- A page of events, newest first. Served by the primary key.
SELECT id FROM events WHERE id < ?1 AND length(id) = 16 ORDER BY id DESC LIMIT ?2
