-- The refunds of captured payments. Served by one_refund_per_payment.
SELECT {r.refund}
FROM unnest($1::uuid[], $2::text[]) AS n (booking_id, transaction_id)
JOIN refunds r ON r.booking_id = n.booking_id AND r.transaction_id = n.transaction_id
