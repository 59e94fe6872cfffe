-- Updates refunds that were settled. Guarded by the statuses that were loaded.
WITH written AS (
    UPDATE refunds r SET {refund_state = n}
    FROM unnest({refund_update $1}) AS n ({refund_update})
    WHERE r.id = n.id AND {guard status-check: r.status = n.loaded_status}
    RETURNING 1)
{count of written}
