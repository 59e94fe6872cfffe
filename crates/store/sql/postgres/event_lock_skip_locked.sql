-- As event_lock, but leaves out the rows that somebody else has locked. Served by the primary key.
SELECT id FROM events WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE SKIP LOCKED
