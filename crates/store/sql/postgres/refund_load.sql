-- The refunds of captured payments. Served by one_refund_per_payment.
SELECT r.id, r.booking_id, r.event_id, r.transaction_id, r.amount, r.currency, r.status, r.reason,
       r.provider_reference, r.created_at, r.settled_at
FROM unnest($1::uuid[], $2::text[]) AS n (booking_id, transaction_id)
JOIN refunds r ON r.booking_id = n.booking_id AND r.transaction_id = n.transaction_id
