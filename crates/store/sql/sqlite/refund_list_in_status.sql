-- Refunds in a status, newest first. Served by refunds_by_status.
SELECT id, booking_id, event_id, transaction_id, amount, currency, status, reason, provider_reference,
       created_at, settled_at
FROM refunds WHERE status = ?1 AND id < ?2 AND length(id) = 16 ORDER BY id DESC LIMIT ?3
