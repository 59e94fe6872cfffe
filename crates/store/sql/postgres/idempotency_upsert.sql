-- What was answered under idempotency keys, in their order; replaces those that are too old to count. A key
-- that somebody else is writing makes this wait, and then miss: the batch is tried again and finds the answer.
WITH written AS (
    INSERT INTO idempotency AS k (scope, key, fingerprint, answer, created_at)
    SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::bigint[])
    ON CONFLICT (scope, key) DO UPDATE SET fingerprint = excluded.fingerprint, answer = excluded.answer,
           created_at = excluded.created_at
    WHERE k.created_at <= excluded.created_at - $6::bigint
    RETURNING 1)
SELECT 1 / (count(*) = cardinality($1))::int FROM written
