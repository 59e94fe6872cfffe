-- Saves the relay's cursors of events on a stream.
INSERT INTO published (event_id, stream, seq)
SELECT event_id, $2::bigint, seq
FROM unnest($1::uuid[], $3::bigint[]) AS saved (event_id, seq) ORDER BY event_id
ON CONFLICT (event_id) DO UPDATE SET stream = excluded.stream, seq = excluded.seq
RETURNING 1
