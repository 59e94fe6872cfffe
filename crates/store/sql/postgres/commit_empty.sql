-- A commit that changes nothing but is written to the WAL, so it waits for the standbys that a commit waits
-- for. Once it has ended, they have everything that was committed before.
SELECT pg_logical_emit_message(true, 'boxoffice', '')::text
