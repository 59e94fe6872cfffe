-- The server process of this connection. Its start time distinguishes it from a later process with the same
-- id.
SELECT pid, (extract(epoch FROM backend_start) * 1000000)::bigint AS started_at
FROM pg_stat_activity WHERE pid = pg_backend_pid()
