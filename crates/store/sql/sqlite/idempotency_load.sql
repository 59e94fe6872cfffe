-- The response stored under an idempotency key, if it has not expired. Served by the primary key.
SELECT {idempotency} FROM idempotency WHERE scope = ?1 AND key = ?2 AND created_at > ?3
