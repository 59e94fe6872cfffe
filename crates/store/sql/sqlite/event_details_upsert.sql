-- Inserts or updates the description of an event. Guarded by the version, which only increases.
INSERT INTO event_details AS d ({event_details}) VALUES ({event_details ?1})
ON CONFLICT (event_id) DO UPDATE SET {event_description = excluded}
WHERE d.version < excluded.version
