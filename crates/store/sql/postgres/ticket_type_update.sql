-- Updates the counters of ticket types. Served by the primary key.
WITH written AS (
    UPDATE ticket_types t SET held = n.held, sold = n.sold
    FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[]) AS n (event_id, place, held, sold)
    WHERE t.event_id = n.event_id AND t.place = n.place
    RETURNING 1)
SELECT 1 / (count(*) = cardinality($1))::int FROM written
