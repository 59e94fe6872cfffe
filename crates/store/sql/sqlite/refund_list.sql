-- Refunds, newest first. Served by the primary key.
SELECT {refund}
FROM refunds WHERE id < ?1 AND length(id) = 16 ORDER BY id DESC LIMIT ?2
