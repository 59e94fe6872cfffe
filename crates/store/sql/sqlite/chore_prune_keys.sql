-- Deletes idempotency keys older than a given time, at most a given number. Served by idempotency_by_age.
DELETE FROM idempotency WHERE (scope, key) IN
    (SELECT scope, key FROM idempotency WHERE created_at < ?1 ORDER BY created_at LIMIT ?2)
