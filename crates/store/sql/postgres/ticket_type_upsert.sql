-- Inserts or updates ticket types, descriptions and counters. Guarded by their ids, which never change.
WITH written AS (
    INSERT INTO ticket_types AS t (event_id, place, id, name, price, capacity, held, sold)
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[], $5::bigint[], $6::bigint[],
           $7::bigint[], $8::bigint[])
    ON CONFLICT (event_id, place) DO UPDATE SET name = excluded.name, price = excluded.price,
           capacity = excluded.capacity, held = excluded.held, sold = excluded.sold
    WHERE t.id = excluded.id
    RETURNING 1)
SELECT 1 / (count(*) = cardinality($1))::int FROM written
