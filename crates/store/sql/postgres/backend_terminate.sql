-- Ends a process of the server, if it is still there; a row as long as it is. Once it is gone, so is its
-- transaction: committed, and seen by whoever looks, or not. One that waits for a standby is left to wait: it has
-- committed, and to end it would show to everybody what the standby does not have.
SELECT CASE WHEN wait_event IS DISTINCT FROM 'SyncRep' THEN pg_terminate_backend(pid) END FROM pg_stat_activity
WHERE pid = $1 AND (extract(epoch FROM backend_start) * 1000000)::bigint = $2
