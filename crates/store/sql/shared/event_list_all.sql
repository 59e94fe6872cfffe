-- Every event, for the audit. Served by the primary key.
SELECT id FROM events ORDER BY id
