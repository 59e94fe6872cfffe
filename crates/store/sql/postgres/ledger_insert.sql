-- Inserts ledger entries. A duplicate number violates the primary key.
WITH written AS (
    INSERT INTO ledger (event_id, seq, type, booking_id, refund_id, lines, quantity, from_status, to_status,
           available_after, previous_seq, actor, request_id, at, trace)
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::uuid[], $5::uuid[], $6::text[],
           $7::bigint[], $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::text[], $13::text[],
           $14::bigint[], $15::text[])
    RETURNING 1)
SELECT 1 / (count(*) = cardinality($1))::int FROM written
