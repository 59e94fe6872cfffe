-- Inserts a refund. A second refund of the same payment violates one_refund_per_payment.
INSERT INTO refunds (id, booking_id, event_id, transaction_id, amount, currency, status, reason,
       provider_reference, created_at, settled_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
