-- Was the transaction committed that ended on this connection? After a failed statement, COMMIT rolls back,
-- and reports that only in its command tag.
SELECT pg_xact_status($1::text::xid8)
