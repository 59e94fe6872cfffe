-- The `traceparent` of the request that caused an entry, or NULL if the request had none. An older version of
-- the program that runs concurrently writes NULL.
ALTER TABLE ledger ADD COLUMN trace text;
