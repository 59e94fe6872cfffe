-- Forgets idempotency keys made before a moment, a bounded number at a time, and leaves those that somebody
-- else is forgetting or replacing. Served by idempotency_by_age.
DELETE FROM idempotency i
USING (SELECT scope, key FROM idempotency WHERE created_at < $1 ORDER BY created_at LIMIT $2
       FOR UPDATE SKIP LOCKED) old
WHERE i.scope = old.scope AND i.key = old.key
RETURNING 1
