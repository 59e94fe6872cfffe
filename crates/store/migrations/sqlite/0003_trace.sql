-- The `traceparent` of the request that caused an entry, where it brought one. An older program beside this one
-- writes none.
ALTER TABLE ledger ADD COLUMN trace TEXT;
