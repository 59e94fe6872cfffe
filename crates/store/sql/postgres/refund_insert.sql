-- Inserts refunds. A second refund of the same payment violates one_refund_per_payment.
WITH written AS (
    INSERT INTO refunds ({refund}) SELECT * FROM unnest({refund $1})
    RETURNING 1)
{count of written}
