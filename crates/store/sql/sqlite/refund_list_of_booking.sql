-- All refunds of a booking, for the audit. Served by one_refund_per_payment.
SELECT {refund}
FROM refunds WHERE booking_id = ?1
