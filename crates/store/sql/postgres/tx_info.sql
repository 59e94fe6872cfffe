-- The clock that decides deadlines, read after the lock; the transaction, whose outcome is asked for by it; and
-- whether commits wait for standbys.
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, pg_current_xact_id()::text,
       current_setting('synchronous_standby_names') <> ''
