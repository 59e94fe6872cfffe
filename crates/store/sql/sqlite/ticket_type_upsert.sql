-- Inserts or updates a ticket type, description and counters. Guarded by its id, which never changes.
INSERT INTO ticket_types AS t ({ticket_type}) VALUES ({ticket_type ?1})
ON CONFLICT (event_id, place) DO UPDATE SET {ticket_type_content = excluded}
WHERE t.id = excluded.id
