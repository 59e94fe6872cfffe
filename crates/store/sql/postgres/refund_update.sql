-- Updates refunds that were settled. Guarded by the statuses that were loaded.
WITH written AS (
    UPDATE refunds r SET status = n.status, provider_reference = n.provider_reference,
           settled_at = n.settled_at
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[])
         AS n (id, status, provider_reference, settled_at, loaded_status)
    WHERE r.id = n.id AND r.status = n.loaded_status
    RETURNING 1)
SELECT 1 / (count(*) = cardinality($1))::int FROM written
