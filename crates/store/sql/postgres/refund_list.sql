-- Refunds, newest first. Served by the primary key.
SELECT {refund}
FROM refunds WHERE id < $1 ORDER BY id DESC LIMIT $2
