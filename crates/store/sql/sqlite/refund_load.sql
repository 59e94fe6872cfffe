-- The refund of one captured payment. Served by one_refund_per_payment.
SELECT id, booking_id, event_id, transaction_id, amount, currency, status, reason, provider_reference,
       created_at, settled_at
FROM refunds WHERE booking_id = ?1 AND transaction_id = ?2
