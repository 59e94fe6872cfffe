-- Updates bookings. Guarded by the versions that were loaded: no other transaction has changed them since.
WITH written AS (
    UPDATE bookings b SET status = n.status, version = n.version, last_seq = n.last_seq,
           transaction_id = n.transaction_id, confirmed_at = n.confirmed_at, cancelled_at = n.cancelled_at,
           cancellation_reason = n.cancellation_reason, refunded = n.refunded, expired_at = n.expired_at,
           updated_at = n.updated_at
    FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[], $7::bigint[],
         $8::text[], $9::boolean[], $10::bigint[], $11::bigint[], $12::bigint[])
         AS n (id, status, version, last_seq, transaction_id, confirmed_at, cancelled_at, cancellation_reason,
               refunded, expired_at, updated_at, loaded_version)
    WHERE b.id = n.id AND b.version = n.loaded_version
    RETURNING 1)
SELECT 1 / (count(*) = cardinality($1))::int FROM written
