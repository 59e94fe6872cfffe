-- One refund by its id. Served by the primary key.
SELECT {refund}
FROM refunds WHERE id = ?1
