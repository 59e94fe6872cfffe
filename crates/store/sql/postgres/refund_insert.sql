-- Inserts refunds. A second refund of the same payment violates one_refund_per_payment.
WITH written AS (
    INSERT INTO refunds (id, booking_id, event_id, transaction_id, amount, currency, status, reason,
           provider_reference, created_at, settled_at)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::bigint[], $6::text[], $7::text[],
           $8::text[], $9::text[], $10::bigint[], $11::bigint[])
    RETURNING 1)
SELECT 1 / (count(*) = cardinality($1))::int FROM written
