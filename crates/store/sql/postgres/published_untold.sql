-- How many ledger entries no note says to be on a stream, whichever that is. Walks the events.
SELECT coalesce(sum(greatest(e.seq - coalesce(p.seq, 0), 0)), 0)::bigint
FROM events e LEFT JOIN published p ON p.event_id = e.id
