-- The refund of one captured payment. Served by one_refund_per_payment.
SELECT {refund}
FROM refunds WHERE booking_id = ?1 AND transaction_id = ?2
