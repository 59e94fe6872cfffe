-- Stores a response under an idempotency key; replaces an expired one.
INSERT OR REPLACE INTO idempotency ({idempotency}) VALUES ({idempotency ?1})
