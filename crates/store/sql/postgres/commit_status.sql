-- The status of a transaction that was committed on this connection: after a failed statement COMMIT rolls
-- back, and reports that only in its command tag.
SELECT pg_xact_status($1::text::xid8)
