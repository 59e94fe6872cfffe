-- Saves the relay's cursor of an event on a stream.
INSERT INTO published (event_id, stream, seq) VALUES (?1, ?2, ?3)
ON CONFLICT (event_id) DO UPDATE SET stream = excluded.stream, seq = excluded.seq
