-- Stores responses under idempotency keys, in the order of the keys; replaces expired ones. If another
-- transaction is writing a key, this waits, and then misses: the batch is retried and finds the stored
-- response.
WITH written AS (
    INSERT INTO idempotency AS k ({idempotency}) SELECT * FROM unnest({idempotency $1})
    ON CONFLICT (scope, key) DO UPDATE SET fingerprint = excluded.fingerprint, answer = excluded.answer,
           created_at = excluded.created_at
    WHERE k.created_at <= excluded.created_at - $6::bigint
    RETURNING 1)
{count of written}
