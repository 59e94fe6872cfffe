-- Forgets idempotency keys made before a moment, a bounded number at a time, and leaves those that somebody
-- else is forgetting or replacing. Served by idempotency_by_age; the rows that it has locked are named by their place,
-- since a join may be made by reading the whole table.
DELETE FROM idempotency
WHERE ctid = ANY (ARRAY(SELECT ctid FROM idempotency WHERE created_at < $1 ORDER BY created_at LIMIT $2
                        FOR UPDATE SKIP LOCKED))
RETURNING 1
