-- Updates the counters of events. Guarded by the ledger numbers that were loaded: no other transaction has
-- written since.
WITH written AS (
    UPDATE events e SET capacity = n.capacity, held = n.held, sold = n.sold, seq = n.seq, last_at = n.last_at,
           pending = n.pending, confirmed = n.confirmed, cancelled = n.cancelled, expired = n.expired,
           revenue = n.revenue::numeric
    FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
         $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::text[], $12::bigint[])
         AS n (id, capacity, held, sold, seq, last_at, pending, confirmed, cancelled, expired, revenue,
               loaded_seq)
    WHERE e.id = n.id AND e.seq = n.loaded_seq
    RETURNING 1)
SELECT 1 / (count(*) = cardinality($1))::int FROM written
