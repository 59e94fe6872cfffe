-- True if a response is stored under a key: the witness of a batch without ledger entries. Served by the
-- primary key.
SELECT EXISTS (SELECT FROM idempotency WHERE scope = $1 AND key = $2 AND fingerprint = $3 AND created_at = $4)
