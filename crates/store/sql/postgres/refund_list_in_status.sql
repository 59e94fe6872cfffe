-- Refunds in a status, newest first. Served by refunds_by_status: the columns are compared as a row, so that
-- no other index provides the order.
SELECT {refund}
FROM refunds WHERE (status, id) < ($1::text, $2::uuid) AND status >= $1
ORDER BY status DESC, id DESC LIMIT $3
