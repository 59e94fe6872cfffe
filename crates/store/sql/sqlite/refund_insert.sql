-- Inserts a refund. A second refund of the same payment violates one_refund_per_payment.
INSERT INTO refunds ({refund}) VALUES ({refund ?1})
