-- What was answered under an idempotency key; replaces one that is too old to count.
INSERT OR REPLACE INTO idempotency (scope, key, fingerprint, answer, created_at) VALUES (?1, ?2, ?3, ?4, ?5)
