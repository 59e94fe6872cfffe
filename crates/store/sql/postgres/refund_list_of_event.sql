-- Every refund of an event, for the audit. Served by refunds_by_event.
SELECT id, booking_id, event_id, transaction_id, amount, currency, status, reason, provider_reference,
       created_at, settled_at
FROM refunds WHERE event_id = $1
