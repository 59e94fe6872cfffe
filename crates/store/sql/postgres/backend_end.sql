-- Ends a process of the server, if it is still there; a row as long as it is. Once it is gone, so is its
-- transaction: committed, and seen by whoever looks, or not.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = $1 AND (extract(epoch FROM backend_start) * 1000000)::bigint = $2
