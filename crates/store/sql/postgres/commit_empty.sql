-- A commit that changes nothing and is written to the WAL all the same, so it waits for the standbys that a commit
-- waits for: once it is over they have everything that was committed before.
SELECT pg_logical_emit_message(true, 'boxoffice', '')::text
