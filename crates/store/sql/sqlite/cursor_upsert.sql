-- Saves the cursor of a consumer for an event.
INSERT INTO cursors ({cursor}) VALUES ({cursor ?1})
ON CONFLICT (consumer, event_id) DO UPDATE SET destination = excluded.destination, seq = excluded.seq
