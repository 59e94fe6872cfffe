-- Locks the rows of events, and with them everything that belongs to these events. The locks are taken in the
-- order of the ids, so that two batches cannot deadlock. The rows that it protects are read by later
-- statements, which see the commit of the previous lock holder. Served by the primary key.
SELECT id FROM events WHERE id = ANY ($1::uuid[]) ORDER BY id {lock row-lock: FOR UPDATE}
