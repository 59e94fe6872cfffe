-- Whether it takes changes; which standbys a commit waits for; for how many seconds a commit of this user has
-- waited for them; the standbys that are connected, and whether this user may see how they are.
SELECT NOT pg_is_in_recovery(), current_setting('synchronous_standby_names'),
       (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - query_start)), 0)::float8 FROM pg_stat_activity
        WHERE datname = current_database() AND usename = current_user AND wait_event = 'SyncRep'),
       (SELECT coalesce(array_agg(application_name), '{}') FROM pg_stat_replication
        WHERE state IS NULL OR state = 'streaming'),
       pg_has_role('pg_read_all_stats', 'USAGE')
