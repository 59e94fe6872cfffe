-- Number of ledger entries above the saved cursors, on whichever stream these are. Reads the events;
-- impossible numbers do not count.
SELECT coalesce(sum(max(e.seq - coalesce(p.seq, 0), 0)), 0)
FROM events e LEFT JOIN published p ON p.event_id = e.id AND p.seq BETWEEN 0 AND e.seq
WHERE e.seq BETWEEN 1 AND 1000000000000
