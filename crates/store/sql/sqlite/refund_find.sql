-- One refund by its id. Served by the primary key.
SELECT id, booking_id, event_id, transaction_id, amount, currency, status, reason, provider_reference,
       created_at, settled_at
FROM refunds WHERE id = ?1
