-- The lock on everything that belongs to these events, taken in the order of their ids so that two batches
-- never wait for each other in a circle. What it guards is read by later statements: they see what whoever
-- held it before has committed. Served by the primary key.
SELECT id FROM events WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE
