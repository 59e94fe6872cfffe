-- Refunds, newest first. Served by the primary key, or by refunds_by_status.
SELECT id, booking_id, event_id, transaction_id, amount, currency, status, reason, provider_reference,
       created_at, settled_at
FROM refunds WHERE id < $1 AND ($2::text IS NULL OR status = $2) ORDER BY id DESC LIMIT $3
