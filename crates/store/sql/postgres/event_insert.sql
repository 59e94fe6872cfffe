-- Inserts the counters of events. A duplicate id violates the primary key.
WITH written AS (
    INSERT INTO events (id, capacity, held, sold, seq, last_at, pending, confirmed, cancelled, expired,
           revenue)
    SELECT id, capacity, held, sold, seq, last_at, pending, confirmed, cancelled, expired, revenue::numeric
    FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
         $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::text[])
         AS n (id, capacity, held, sold, seq, last_at, pending, confirmed, cancelled, expired, revenue)
    RETURNING 1)
SELECT 1 / (count(*) = cardinality($1))::int FROM written
