-- The clock that decides deadlines, read after the lock; and the transaction, whose outcome is asked for by it.
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, pg_current_xact_id()::text
