-- Stores a response under an idempotency key; replaces an expired one.
INSERT OR REPLACE INTO idempotency (scope, key, fingerprint, answer, created_at) VALUES (?1, ?2, ?3, ?4, ?5)
