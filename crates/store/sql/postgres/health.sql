-- True if the server is a primary; the setting of the synchronous standbys; the seconds for which a commit of
-- this user has been waiting for them; the connected standbys; true if this user may see their state.
SELECT NOT pg_is_in_recovery() AS is_primary,
       current_setting('synchronous_standby_names') AS setting,
       (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - query_start)), 0)::float8
        FROM pg_stat_activity
        WHERE datname = current_database() AND usename = current_user AND wait_event = 'SyncRep')
           AS wait_seconds,
       (SELECT coalesce(array_agg(application_name), '{}') FROM pg_stat_replication
        WHERE state IS NULL OR state = 'streaming') AS connected,
       pg_has_role('pg_read_all_stats', 'USAGE') AS are_visible
