-- Inserts or updates a ticket type, description and counters.
INSERT INTO ticket_types (event_id, place, id, name, price, capacity, held, sold)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
ON CONFLICT (event_id, place) DO UPDATE SET name = ?4, price = ?5, capacity = ?6, held = ?7, sold = ?8
WHERE id = ?3
