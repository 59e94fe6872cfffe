-- All refunds of some bookings, for the audit. Served by one_refund_per_payment.
SELECT {refund}
FROM refunds WHERE booking_id = ANY ($1::uuid[])
