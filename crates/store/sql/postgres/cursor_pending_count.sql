-- Number of ledger entries above the saved cursors of a consumer, at whichever destination these are. Reads
-- the events; impossible numbers do not count.
SELECT coalesce(sum(greatest(e.seq - coalesce(c.seq, 0), 0)), 0)::bigint
FROM events e
LEFT JOIN cursors c ON c.consumer = $1::text AND c.event_id = e.id AND c.seq BETWEEN 0 AND e.seq
WHERE e.seq BETWEEN 1 AND 1000000000000
