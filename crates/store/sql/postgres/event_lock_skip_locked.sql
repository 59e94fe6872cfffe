-- As event_lock, but skips rows that another session has locked. Served by the primary key.
SELECT id FROM events WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE SKIP LOCKED
