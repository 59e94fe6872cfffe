-- What was answered under an idempotency key, where that is not too long ago. Served by the primary key.
SELECT fingerprint, answer FROM idempotency WHERE scope = ?1 AND key = ?2 AND created_at > ?3
