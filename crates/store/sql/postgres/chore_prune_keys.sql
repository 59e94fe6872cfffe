-- Deletes idempotency keys older than a given time, at most a given number, and skips those that another
-- session is deleting or replacing. Served by idempotency_by_age. The locked rows are selected by ctid,
-- because a join might read the whole table.
DELETE FROM idempotency
WHERE ctid = ANY (ARRAY(SELECT ctid FROM idempotency WHERE created_at < $1 ORDER BY created_at LIMIT $2
                        FOR UPDATE SKIP LOCKED))
RETURNING 1
