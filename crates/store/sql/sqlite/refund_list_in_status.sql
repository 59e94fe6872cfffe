-- Refunds in a status, newest first. Served by refunds_by_status.
SELECT {refund}
FROM refunds WHERE status = ?1 AND id < ?2 AND length(id) = 16 ORDER BY id DESC LIMIT ?3
