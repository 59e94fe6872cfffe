-- The responses stored under idempotency keys within the last $3 seconds. Served by the primary key.
SELECT {k.idempotency}
FROM unnest($1::text[], $2::text[]) AS n (scope, key)
JOIN idempotency k ON k.scope = n.scope AND k.key = n.key
WHERE k.created_at > (extract(epoch FROM statement_timestamp()) - $3::bigint) * 1000000
