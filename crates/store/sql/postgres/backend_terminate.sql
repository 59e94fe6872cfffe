-- Terminates a server process if it still exists; returns a row as long as it does. Once it is gone, its
-- transaction is either committed and visible to all sessions, or rolled back. A process that waits for a
-- standby is not terminated: it has committed, and its end would make a change visible that the standby does
-- not have.
SELECT CASE WHEN wait_event IS DISTINCT FROM 'SyncRep' THEN pg_terminate_backend(pid) END
FROM pg_stat_activity
WHERE pid = $1 AND (extract(epoch FROM backend_start) * 1000000)::bigint = $2
