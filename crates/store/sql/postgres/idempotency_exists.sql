-- Whether an answer is kept under a key: what a batch without ledger entries leaves. Served by the primary key.
SELECT EXISTS (SELECT FROM idempotency WHERE scope = $1 AND key = $2 AND fingerprint = $3 AND created_at = $4)
