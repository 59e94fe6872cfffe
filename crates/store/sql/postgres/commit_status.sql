-- Whether a transaction of this connection was committed: a COMMIT after a failed statement rolls back and
-- says so only in its tag.
SELECT pg_xact_status($1::text::xid8)
