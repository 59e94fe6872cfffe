-- Inserts bookings. A duplicate id violates the primary key.
WITH written AS (
    INSERT INTO bookings (id, event_id, user_id, status, version, last_seq, items, currency, total,
           hold_expires_at, payment_method, transaction_id, confirmed_at, cancelled_at, cancellation_reason,
           refunded, expired_at, created_at, updated_at)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::bigint[],
           $7::text[], $8::text[], $9::bigint[], $10::bigint[], $11::text[], $12::text[], $13::bigint[],
           $14::bigint[], $15::text[], $16::boolean[], $17::bigint[], $18::bigint[], $19::bigint[])
    RETURNING 1)
SELECT 1 / (count(*) = cardinality($1))::int FROM written
