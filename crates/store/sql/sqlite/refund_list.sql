-- Refunds, newest first. Served by the primary key.
SELECT id, booking_id, event_id, transaction_id, amount, currency, status, reason, provider_reference,
       created_at, settled_at
FROM refunds WHERE id < ?1 AND length(id) = 16 ORDER BY id DESC LIMIT ?2
