-- The clock for deadlines, read after the lock; the transaction id, for the query of its status; true if
-- commits wait for synchronous standbys.
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, pg_current_xact_id()::text,
       current_setting('synchronous_standby_names') <> ''
